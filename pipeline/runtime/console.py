"""Print messages to the user: one logger, one handler on stderr."""

import logging
import re
import sys

from pipeline.runtime.process import is_first, is_new_message

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line breaks, and bytes that are not UTF-8."""

log = logging.getLogger("pipeline")
"""The logger of all commands: info for progress, warning, error."""


def visible(text: str) -> str:
    """Return a text with its control characters written as escapes; else a name could command the terminal."""
    return UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


class Console(logging.Handler):
    """Write each message as one line to stderr, so that results can be piped.

    The first of several processes writes progress and warnings. Each process writes its errors, unless another one
    has written the same.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        text = record.getMessage()
        if is_new_message(text) if record.levelno >= logging.ERROR else is_first():
            print(visible(" ".join(text.splitlines())), file=sys.stderr, flush=True)


def start_logging(level: int = logging.INFO) -> None:
    """Send the messages of all commands to stderr, from this level up."""
    log.setLevel(level)
    if not any(isinstance(handler, Console) for handler in log.handlers):
        log.addHandler(Console())


NAMED = 12
"""How many file names one message lists before it counts the rest."""


def list_names(names: list[str]) -> str:
    """Return names for a one-line message: the first dozen, then a count."""
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
