"""Print messages to the user."""

import re
import sys

from pipeline.runtime.process import is_first, is_news

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line breaks, and bytes that are not UTF-8."""


def visible(text: str) -> str:
    """Return a text with its control characters written as escapes; else a name could command the terminal."""
    return UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def say(text: str) -> None:
    """Print one line of progress to the user (stderr, so that results can be piped); only in the first process."""
    if is_first():
        _print(text)


def complain(text: str) -> None:
    """Print one line about what went wrong, whichever process this is, unless another one has said the same."""
    if is_news(text):
        _print(text)


def _print(text: str) -> None:
    print(visible(" ".join(text.splitlines())), file=sys.stderr, flush=True)


NAMED = 12
"""How many file names one message lists before it counts the rest."""


def list_names(names: list[str]) -> str:
    """Return names for a one-line message: the first dozen, then a count."""
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
