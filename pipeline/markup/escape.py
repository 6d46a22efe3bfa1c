"""Escape text for Markdown."""

import re

from pipeline.runtime.console import visible

MARKUP = re.compile(r"[\\|<>*_`\[\]~$]|&(?=[#\w]+;)|:(?=//)|(?<=www)\.", re.IGNORECASE)
"""Characters with a meaning in GitHub's Markdown; the last two parts make links of addresses."""


def markdown_cell(text: str) -> str:
    """Return text that cannot break a Markdown table, become markup, or command a terminal that shows the page."""
    return visible(" ".join(MARKUP.sub(r"\\\g<0>", text).split()))
