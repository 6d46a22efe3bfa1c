"""Continue without an error when the reader of stdout or stderr has left, as `head` does."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class Survivor:
    """A stream for text whose reader may leave: from then on, what is written is discarded."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text; return the number of its characters."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        """Hand what was written to the system."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard()

    def _discard(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())  # the stream still holds text, which it now writes there
        os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def survive_lost_readers() -> Iterator[None]:
    """Let stdout and stderr survive the end of their readers, until both are flushed at the end."""
    with contextlib.ExitStack() as stack:
        for stream, redirect in ((sys.stdout, contextlib.redirect_stdout), (sys.stderr, contextlib.redirect_stderr)):
            if stream is not None:  # closed by the shell: >&-
                survivor = Survivor(stream)
                stack.enter_context(redirect(survivor))
                stack.callback(survivor.flush)
        yield
