"""The pictures of the README: python tests/browser/shoot_docs.py STUDY writes docs/explorer_light.png, docs/explorer_dark.png and docs/explorer.webp.

They show the real app on a copy of a finished study: three layers selected, one locked, a few edits since the last
measurement. The run's minute must have reached the Hessian of all three; `paredown curvature STUDY --seconds 60` gives it another.
The moving one is made of screenshots too, one after each gesture; its plan is really measured.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
sys.path[:1] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]
FLAGS = import_module("browser.harness").FLAGS
served = import_module("explorer").served
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
        copy = Path(folder) / "moving" / study.name
        shutil.copytree(study, copy)
        (copy / "explorer.json").unlink(missing_ok=True)
        with served(copy) as address:
            moving = ROOT / "docs" / "explorer.webp"
            film(browser, address, moving)
            print(f"{moving.relative_to(ROOT)}: {moving.stat().st_size / 1e3:.0f} kB")
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
    for index in (10, 17):
        cell.nth(index).click(modifiers=["Control"])
    page.get_by_role("radio", name="Hessian").click()
    calm(page)
    drawn = page.locator("[data-chart=spectrum] .js-plotly-plot").evaluate(
        "(plot) => plot.data.filter((one) => one.uid.startsWith('udensity')).length"
    )
    if drawn < 3:
        raise SystemExit(
            f"expected the Hessian of the three selected layers, got {drawn}: paredown curvature STUDY --seconds 60, then again"
        )
    page.locator(".pd").screenshot(path=picture)
    page.close()


def film(browser: Browser, address: str, picture: Path) -> None:
    """A plan taken in hand, filled, measured, and held against a uniform one."""
    page = browser.new_page(viewport={"width": WIDTH + 2 * MARGIN, "height": 900}, color_scheme="light")
    page.goto(address, timeout=120_000)
    page.locator("[data-chart=front][data-draws]").wait_for(timeout=60_000)
    frames: list[tuple[Image.Image, int]] = []
    place = page.locator(".pd").bounding_box()  # of the overview: all frames have its size
    assert place is not None

    def take(milliseconds: int) -> None:
        page.wait_for_timeout(400)
        frames.append((Image.open(io.BytesIO(page.screenshot(clip=place))).convert("RGB"), milliseconds))

    cell = page.locator(".pd-grid [role=gridcell]")
    take(1500)
    cell.nth(16).click()
    take(800)
    for key in "56":
        page.keyboard.press(key)
        take(600)
    page.keyboard.press("l")
    take(800)
    budget = page.get_by_role("textbox", name="Budget")
    budget.fill("17.50")
    budget.press("Enter")
    take(1000)
    page.get_by_role("button", name="Fill the rest").click()
    take(1300)
    page.get_by_role("button", name="Measure", exact=True).click()
    take(1000)
    page.locator(".chip.measured").first.wait_for(timeout=120_000)
    take(2000)
    cell.nth(16).click()
    page.keyboard.press("Enter")
    take(2500)
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("button", name="Add plan").click()
    take(700)
    page.get_by_role("menuitem").first.click()
    take(2500)
    first, *others = [frame for frame, _ in frames]
    first.save(picture, save_all=True, append_images=others, duration=[each for _, each in frames], loop=0, lossless=True, method=4)
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
