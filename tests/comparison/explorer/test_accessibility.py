"""axe-core, the rules of accessibility, on report.html: in light and dark, with all folded parts open."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 360)])
def test_the_report_has_no_serious_finding(
    open_html: Callable[..., Any], whole_report: str, axe: str, scheme: str, width: int
) -> None:
    browser = open_html(whole_report, waits_for="#selected", width=width)
    browser.page.emulate_media(color_scheme=scheme)
    browser.page.click('[data-cell="0-1"]')
    browser.page.locator(".tiles button").first.click()
    found = browser.serious(axe)
    assert found == [], "\n".join(found)
