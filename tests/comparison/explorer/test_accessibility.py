"""axe-core, the rules of accessibility, on report.html: in light and dark, with all folded parts open."""

import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

AXE = "axe-core@4.10.3"
"""From npm, in the version that the page passed with."""


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the script of axe-core; npm keeps it in its own cache."""
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("axe")
    if npm is None:
        pytest.skip("no npm, which has axe-core")
    words = [npm, "pack", AXE, "--silent", "--prefer-offline", "--pack-destination", str(folder)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    packed = list(Path(folder).glob("*.tgz"))
    if done.returncode or not packed:
        pytest.skip(f"npm has no {AXE}: {done.stderr[-200:]}")
    with tarfile.open(packed[0]) as file:
        script = file.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


def violations(page: Any, axe: str) -> list[str]:
    """Return rule, element and reason of all serious and critical findings."""
    page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_has_no_serious_finding(show: Callable[..., Any], whole_report: str, axe: str, scheme: str) -> None:
    browser = show(whole_report)
    browser.page.emulate_media(color_scheme=scheme)
    browser.page.click('[data-cell="0-1"]')
    browser.page.locator(".tiles button").first.click()
    found = violations(browser.page, axe)
    assert found == [], "\n".join(found)
