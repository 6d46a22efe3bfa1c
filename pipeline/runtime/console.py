"""Print messages to the user: one logger, one handler on stderr."""

import logging
import re
import sys
import time

from pipeline.runtime.process import is_first, is_new_message

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line breaks, and bytes that are not UTF-8."""

PREFIXES = {logging.WARNING: "warning: ", logging.ERROR: "error: "}
"""Level of a message -> the words before it."""

log = logging.getLogger("pipeline")
"""The logger of all commands. debug: how a result is made; info: progress; warning: what the user should know, such as
skipped tiles; error: why the command failed."""


def visible(text: str) -> str:
    """Return a text with its control characters as escapes, so that a name cannot command the terminal."""
    return UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


class Console(logging.Handler):
    """Write each message as one line to stderr, so that results on stdout can be piped.

    With several processes the first one writes everything below an error. Each process writes its errors, unless
    another process has written the same error.
    """

    def __init__(self, level: int) -> None:
        super().__init__()
        self.with_time = level <= logging.DEBUG

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        text = record.getMessage()
        lines = [" ".join(text.splitlines())]
        if record.exc_info:
            lines += logging.Formatter().formatException(record.exc_info).splitlines()
        if is_new_message(text) if record.levelno >= logging.ERROR else is_first():
            clock = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} " if self.with_time else ""
            for line in lines:
                print(f"{clock}{PREFIXES.get(record.levelno, '')}{visible(line)}", file=sys.stderr, flush=True)


def start_logging(*, quiet: bool = False, verbose: bool = False) -> None:
    """Send the messages of all commands to stderr.

    Args:
        quiet: write warnings and errors only.
        verbose: write debug messages too, and the time of each message.
    """
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    for handler in [handler for handler in log.handlers if isinstance(handler, Console)]:
        log.removeHandler(handler)
    log.addHandler(Console(level))
    log.setLevel(level)


def is_quiet() -> bool:
    """Return whether messages about progress are left out."""
    return not log.isEnabledFor(logging.INFO)


MOST_NAMES = 12
"""How many file names one message lists before it counts the rest."""


def list_names(names: list[str]) -> str:
    """Return names for a one-line message: the first dozen, then a count of the others."""
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
