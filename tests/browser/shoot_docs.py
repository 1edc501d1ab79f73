"""The pictures of the README: python tests/browser/shoot_docs.py STUDY writes docs/explorer_light.png and docs/explorer_dark.png.

They show the real app on a copy of a finished study: two layers selected, one locked, a few edits since the last
measurement. The run's minute must have reached the Hessian of both layers; `paredown curvature STUDY --seconds 60` gives it another.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]
FLAGS = import_module("browser.harness").FLAGS
served = import_module("explorer_latency").served
WIDTH, MARGIN, SCALE = 1280, 12, 1.5


def main(study: Path) -> None:
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        for theme in ("light", "dark"):
            copy = Path(folder) / theme / study.name
            shutil.copytree(study, copy)
            (copy / "explorer.json").unlink(missing_ok=True)
            with served(copy) as address:
                picture = ROOT / "docs" / f"explorer_{theme}.png"
                picture.parent.mkdir(exist_ok=True)
                shoot(browser, address, theme, picture)
                squeeze(picture)
                print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size / 1e3:.0f} kB")
        browser.close()


def shoot(browser: Browser, address: str, theme: str, picture: Path) -> None:
    """One picture of the explorer in the middle of somebody's work."""
    size = {"width": WIDTH + 2 * MARGIN, "height": 900}
    page = browser.new_page(viewport=size, device_scale_factor=SCALE, color_scheme=theme)  # pyright: ignore[reportArgumentType]
    page.goto(address, timeout=120_000)
    page.locator("[data-chart=front][data-draws]").wait_for(timeout=60_000)
    cell = page.locator(".pd-grid [role=gridcell]")
    for index, keys in ((4, "6"), (16, "5l"), (29, "4")):
        cell.nth(index).click()
        for key in keys:
            page.keyboard.press(key)
            page.wait_for_timeout(300)
    budget = page.get_by_role("textbox", name="Budget")
    budget.fill("18.60")
    budget.press("Enter")
    cell.nth(4).click()
    cell.nth(17).click(modifiers=["Control"])
    page.get_by_role("radio", name="Hessian").click()
    calm(page)
    page.locator(".pd").screenshot(path=picture)
    page.close()


def calm(page: Page) -> None:
    """Nothing under the pointer or the keyboard, everything drawn."""
    page.mouse.move(0, 0)
    page.evaluate(
        "() => { let e = document.activeElement; while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement; e?.blur(); }"
    )
    page.wait_for_timeout(1500)


def squeeze(picture: Path) -> None:
    """A palette of 256 colours where the tool is installed: a third of the size."""
    if shutil.which("pngquant"):
        subprocess.run(["pngquant", "--force", "--output", str(picture), "256", str(picture)], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
