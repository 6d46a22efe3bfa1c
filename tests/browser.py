"""Pages in headless chromium: what they write to the console and ask the network for, and their accessibility."""

import dataclasses
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

AXE = "axe-core@4.10.3"
"""From npm, in the version that the pages passed with."""


@dataclasses.dataclass
class Browser:
    """An open page, and what it wrote to the console or asked the network for."""

    page: Any
    problems: list[str]
    requests: list[str]

    def serious(self, axe: str) -> list[str]:
        """Return rule, element and reason of all serious and critical findings of axe-core, folded parts open."""
        self.page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
        self.page.evaluate(axe)
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}"
            for rule in found["violations"]
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]

    def sent(self) -> list[str]:
        """Return the requests for anything but the page itself and what it holds."""
        of_page = [url for url in self.requests if url.startswith("file:")]
        return of_page[1:] + [url for url in self.requests if not url.startswith(("data:", "file:"))]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless browser; without one the test is skipped."""
    if CHROMIUM is None:
        pytest.skip("no chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_html(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Browser]]:
    """Return a function that opens an HTML text and waits for an element."""
    pages = []

    def open_page(html: str, *, waits_for: str, address: str = "", width: int = 1200) -> Browser:
        (tmp_path / "page.html").write_text(html, encoding="utf-8")
        page = chromium.new_page(viewport={"width": width, "height": 900})
        pages.append(page)
        found = Browser(page, [], [])
        page.on("console", lambda message: found.problems.append(message.text))
        page.on("pageerror", lambda error: found.problems.append(str(error)))
        page.on("request", lambda request: found.requests.append(request.url))
        page.goto(f"file://{tmp_path}/page.html{address}")
        page.wait_for_selector(waits_for)
        return found

    yield open_page
    for page in pages:
        page.close()


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
