"""Escape text for Markdown."""

import re

from pipeline.runtime.console import visible

MARKUP = re.compile(r"[\\|<>*_`\[\]~$]|&(?=[#\w]+;)|:(?=//)|(?<=www)\.", re.IGNORECASE)
"""What Markdown, as GitHub shows it, takes for more than a character; the last two make links of addresses."""


def markdown_cell(text: str) -> str:
    """Return text that cannot break a Markdown table, become markup, or command a terminal that shows the page."""
    return visible(" ".join(MARKUP.sub(r"\\\g<0>", text).split()))
