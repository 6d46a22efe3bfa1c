"""Write the metrics of finished epochs while a network trains: metrics.jsonl, and event files for TensorBoard if asked.

Both follow from the history of the checkpoint, so that an epoch that is trained again is in them once.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError
from pipeline.storage import atomic

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS, EVENTS = "metrics.jsonl", "tensorboard"
"""File and folder in the run folder."""


class EpochLog:
    """The files of a training that show its progress.

    Args:
        run: the run folder.
        tensorboard: whether to write event files, too.

    Raises:
        PipelineError: TensorBoard is not installed.
    """

    def __init__(self, run: Path, *, tensorboard: bool) -> None:
        self.run, self.tensorboard = run, tensorboard
        self.writer: SummaryWriter | None = None
        self.n_written = 0
        """Epochs in the event file of this process."""
        if tensorboard:
            try:
                import torch.utils.tensorboard  # noqa: F401
            except ImportError:
                reason = "--tensorboard needs the library tensorboard: pip install 'histoheads[tensorboard]'"
                raise PipelineError(reason) from None

    def write(self, history: Sequence[dict[str, float]]) -> None:
        """Write all finished epochs.

        Args:
            history: name -> value of each epoch (`checkpoint.Progress.history`).
        """
        lines = (json.dumps(row, sort_keys=True) + "\n" for row in history)
        atomic.write_text(self.run / METRICS, "".join(lines))
        if not self.tensorboard:
            return
        if self.writer is None:
            self.writer = self._new_writer()
        for row in history[self.n_written :]:
            for name, value in row.items():
                if name != "epoch":
                    self.writer.add_scalar(name, value, int(row["epoch"]))
        self.n_written = len(history)
        self.writer.flush()

    def _new_writer(self) -> "SummaryWriter":
        """Return a writer into an empty folder: what an earlier process wrote is in the history."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self.run / EVENTS
        atomic.check_no_link(folder)
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        return SummaryWriter(str(folder))

    def close(self) -> None:
        """Close the event file."""
        if self.writer is not None:
            self.writer.close()
