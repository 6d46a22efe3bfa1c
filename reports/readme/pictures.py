"""Take the README's pictures of a run's report.html: its first screen, and the tiles of its largest confusion.

    python reports/readme/pictures.py reports/demo

Needs playwright and Debian's chromium. Only for runs whose tiles may be published, such as the synthetic demo.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
WIDTH, HEIGHT = 1100, 900
"""Size of a picture in px."""

LARGEST_CONFUSION = """() => [...document.querySelectorAll('[data-cell]')]
  .filter((cell) => new Set(cell.dataset.cell.split('-')).size === 2)
  .sort((a, b) => Number(b.textContent) - Number(a.textContent))[0].dataset.cell"""


def take(page: Page, name: str) -> None:
    """Write what the window shows as WebP."""
    with Image.open(io.BytesIO(page.screenshot())) as image:
        image.convert("RGB").save(HERE / name, "WEBP", quality=75, method=6)
    print(f"{HERE / name}: {(HERE / name).stat().st_size / 1e3:.0f} kB")


def main() -> None:
    """Write report-first.webp and report-cell.webp next to this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    report = (parser.parse_args().run / "report.html").resolve()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(report.as_uri())
        page.wait_for_selector("#selected")
        take(page, "report-first.webp")
        page.click(f'[data-cell="{page.evaluate(LARGEST_CONFUSION)}"]')
        page.locator(".tiles button").first.click()
        page.get_by_text("Save the selection as CSV").evaluate("(part) => part.scrollIntoView({block: 'start'})")
        take(page, "report-cell.webp")
        browser.close()


if __name__ == "__main__":
    main()
