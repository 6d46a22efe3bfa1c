"""Turn Ctrl-C and SIGTERM into a request that long loops check, so that they can save before they stop."""

import signal
from types import FrameType, TracebackType

from pipeline.errors import Interrupted, WorkerLost


class StopRequest:
    """While entered, the first SIGINT or SIGTERM only sets `signum`; a second one ends the process as usual.

    With `echoes` it does not: a batch system signals every process, and then torchrun, which has got the signal too,
    signals its own once more. Torchrun itself kills those that take too long.

    with StopRequest() as stop:
        for step in steps:
            ...
            if stop.signum:
                save()
                raise stop.interrupted("saved in checkpoint.pt")
    """

    def __init__(self, *, echoes: bool = False) -> None:
        self.signum = 0
        self.echoes = echoes
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if self.signum and kind is WorkerLost:
            # the signal went to the whole group and met a worker too young to leave it to this process
            raise self.interrupted("the work so far is kept") from None

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        if not self.echoes:
            self._restore()

    def interrupted(self, saved: str) -> Interrupted:
        """Return the error to raise after saving."""
        name = signal.Signals(self.signum).name
        return Interrupted(
            f"{name}: {saved}; to continue, run the same command again (without --restart)", signum=self.signum
        )
