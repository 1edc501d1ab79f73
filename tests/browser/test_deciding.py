"""Deciding in Chromium, with the real view model behind the page: history, plans by name, the budget's unit, phrases, the table, and what is measured first."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from browser.answered import Rich, refined_study, rich_study
from browser.harness import View
from fake_study import RICH, FakeStudy

pytestmark = pytest.mark.browser

OUT, FC1 = 4, 5


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("deciding")
    return refined_study(place / "refined").folder, rich_study(place / "rich").folder


@pytest.fixture
def timed(folders: tuple[Path, Path], tmp_path: Path, view: View) -> Rich:
    """A refined and timed study, shown."""
    rich = Rich(FakeStudy(shutil.copytree(folders[0], tmp_path / "study"), timed=True))
    view.mount(rich.state())
    view.drawn("front")
    return rich


@pytest.fixture
def rich(folders: tuple[Path, Path], tmp_path: Path, view: View) -> Rich:
    """A study of bits, sparsity and rank, shown."""
    made = Rich(FakeStudy(shutil.copytree(folders[1], tmp_path / "study"), schemes=RICH))
    view.mount(made.state())
    return made


def plan_menu(view: View, name: str):
    view.page.locator(".pd-card").get_by_role("button", name=name).click()
    return view.page.locator(".pd-card").get_by_role("menu")


def test_a_step_of_the_history_is_gone_to_by_mouse_and_by_keys(timed: Rich, view: View) -> None:
    begun = dict(timed.model.editor.schemes)
    timed.do("bits", layers=[timed.names[OUT]], bits=8)
    timed.do("bits", layers=[timed.names[FC1]], bits=2)
    edited = dict(timed.model.editor.schemes)
    timed.answer(view, "steps", "presets")
    menu = plan_menu(view, "History")
    steps = menu.get_by_role("menuitemradio")
    expect(steps).to_have_text(["Block 0 fc1 to 2 bit", "Block 0 o to 8 bit", "the plan that it began with"])
    expect(steps.first).to_be_focused()
    steps.last.click()
    timed.answer(view, "steps", "presets")
    assert timed.model.editor.schemes == begun
    expect(menu).to_be_hidden()
    expect(view.page.get_by_role("button", name="History")).to_be_focused()
    view.page.keyboard.press("Enter")
    expect(menu.get_by_role("menuitemradio", name="Block 0 fc1 to 2 bit, undone")).to_be_visible()
    view.page.keyboard.press("Home")
    view.page.keyboard.press("Enter")
    timed.answer(view, "steps", "presets")
    assert timed.model.editor.schemes == edited


@pytest.mark.parametrize("height", [862, 480])
def test_the_menu_of_plans_stays_on_the_screen(timed: Rich, view: View, height: int) -> None:
    view.page.set_viewport_size({"width": 1280, "height": height})
    view.page.get_by_role("button", name="Plans", exact=True).scroll_into_view_if_needed()
    items = plan_menu(view, "Plans").get_by_role("menuitem")
    items.last.scroll_into_view_if_needed()
    for part in (items.last, view.page.get_by_label("Name to save this plan by")):
        box = part.bounding_box()
        assert box is not None
        assert 0 <= box["y"] <= height - box["height"]


def test_plans_are_loaded_and_saved_by_name(timed: Rich, view: View) -> None:
    menu = plan_menu(view, "Plans")
    menu.get_by_role("menuitem", name="3 bit, groups of 64").click()
    timed.answer(view, "steps", "presets")
    assert {str(scheme) for scheme in timed.model.editor.schemes.values()} == {"int3g64"}
    plan_menu(view, "Plans")
    hostile = "<b>mine</b>"
    view.page.get_by_label("Name to save this plan by").fill(hostile)
    view.page.keyboard.press("Enter")
    timed.answer(view, "steps", "presets")
    plan_menu(view, "Plans").get_by_role("menuitem", name="As shipped").click()
    timed.answer(view, "steps", "presets")
    saved = plan_menu(view, "Plans").get_by_role("menuitem", name=hostile)
    expect(saved.first).to_contain_text(hostile)
    saved.first.click()
    timed.answer(view, "steps", "presets")
    assert {str(scheme) for scheme in timed.model.editor.schemes.values()} == {"int3g64"}
    plan_menu(view, "Plans").get_by_role("menuitem", name=f"Remove {hostile}").click()
    timed.answer(view, "steps", "presets")
    expect(view.page.get_by_role("menuitem", name=hostile)).to_have_count(0)
    view.page.keyboard.press("Escape")
    view.page.mouse.click(640, 8)
    expect(view.page.locator(".pd-card").get_by_role("menu")).to_be_hidden()


def test_the_budget_turns_to_latency_and_is_filled_by_it(timed: Rich, view: View) -> None:
    view.page.get_by_label("Unit of the budget").select_option("ms")
    timed.answer(view, "budget")
    thumb = view.page.get_by_role("slider")
    expect(thumb).to_have_attribute("aria-valuetext", re.compile(r"ms"))
    expect(view.page.locator(".pd-track .tick span:visible b")).to_have_text(["W2", "W3", "W4", "W8"])  # though W3 is slower than W4
    expect(view.page.locator(".pd-track .plan")).to_contain_text(re.compile(r"ms ± "))
    thumb.focus()
    before = timed.model.latency_budget or 0.0
    thumb.press("ArrowLeft")
    timed.answer(view, "budget")
    assert (timed.model.latency_budget or 0.0) < before
    view.page.get_by_role("button", name="Fill the rest").click()
    timed.answer(view, "budget")
    prediction = timed.model.predict()
    assert prediction is not None
    assert prediction.seconds_per_token is not None
    assert prediction.seconds_per_token <= (timed.model.latency_budget or 0.0) * (1 + 1e-6)
    expect(view.page.locator(".pd-budget")).to_have_attribute("data-kind", "under")


def test_a_phrase_selects_and_a_broken_one_says_what_is_missing(timed: Rich, view: View) -> None:
    field = view.page.get_by_label("Filter layers")
    field.fill("q k v of blocks 1-2")
    timed.answer(view)
    field.press("Enter")
    timed.answer(view)
    labels = [timed.model.labels[name].text for name in timed.model.selection]
    assert labels == [f"Block {block} {role}" for block in (1, 2) for role in "qkv"]
    field.fill("bits <")
    timed.answer(view)
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(view.page.get_by_text("expected a number after it, such as bits < 4")).to_be_visible()
    expect(view.page.locator(".pd-cell.dim")).to_have_count(0)
    field.fill("not locked bits < 3")
    timed.answer(view)
    expect(field).not_to_have_attribute("aria-invalid", "true")
    field.press("Escape")


def table(view: View):
    view.page.get_by_role("radiogroup", name="Plan as").get_by_role("radio", name="Table").click()
    return view.page.get_by_role("grid", name="Plan, a row a layer")


def test_the_table_is_edited_by_mouse(rich: Rich, view: View) -> None:
    grid = table(view)
    cut = "(names) => names.filter((name) => name.scrollWidth > name.clientWidth).map((name) => name.textContent)"
    assert grid.locator(".rows .c.layer").evaluate_all(cut) == []
    row = grid.locator(f'[data-layer="{rich.names[OUT]}"]')
    row.locator(".bits").click()
    view.page.get_by_label(f"bits of {rich.model.labels[rich.names[OUT]].text}").select_option("8")
    rich.answer(view, "sensitivity")
    assert rich.scheme(OUT).startswith("int8g64")
    expect(row.locator(".bits")).to_have_text("8")
    row.locator(".sparsity").click()
    row.locator("select").select_option("2:4")
    rich.answer(view, "sensitivity")
    expect(row.locator(".sparsity")).to_have_text("2:4")
    row.locator(".lock").click()
    rich.answer(view, "sensitivity")
    assert rich.names[OUT] in rich.model.locked
    row.locator(".rank").click()
    expect(row.locator("select")).to_have_count(0)
    expect(view.page.locator(".pd-srow", has_text="2:4").first).to_be_visible()


def test_the_table_is_edited_by_keys_and_sorted(rich: Rich, view: View) -> None:
    grid = table(view)
    grid.locator("[tabindex='0'][data-column]").focus()
    view.page.keyboard.press("ArrowDown")
    view.page.keyboard.press("ArrowDown")
    rich.answer(view, "sensitivity")
    here = rich.model.selection[-1]
    view.page.keyboard.press("8")
    rich.answer(view, "sensitivity")
    assert rich.model.editor.schemes[here].weight.bits == 8  # pyright: ignore[reportOptionalMemberAccess]
    view.page.keyboard.press("ArrowRight")
    expect(grid.locator(".bits:focus")).to_have_count(1)
    view.page.keyboard.press("Enter")
    expect(grid.locator("select")).to_be_focused()
    for _ in range(2):  # the browser's own list takes the first
        view.page.keyboard.press("Escape")
    expect(grid.locator("select")).to_have_count(0)
    expect(grid.locator(".bits:focus")).to_have_count(1)
    grid.get_by_role("button", name="Bits").click()
    expect(grid.get_by_role("columnheader").filter(has_text="Bits")).to_have_attribute("aria-sort", "ascending")
    shown = grid.locator(".rows > .row")
    order = view.page.evaluate(
        "() => [...root.querySelectorAll('.pd-table .rows > .row')].sort((a, b) => a.ariaRowIndex - b.ariaRowIndex).map((row) => row.querySelector('.bits').textContent)"
    )
    bits = [int(text) for text in order if text.isdigit()]
    assert bits == sorted(bits)
    expect(shown.first).to_be_visible()


def test_the_table_of_a_deep_model_holds_only_the_rows_in_sight(tmp_path: Path, view: View) -> None:
    deep = Rich(FakeStudy(rich_study(tmp_path, 60).folder, blocks=60, schemes=RICH))
    view.mount(deep.state())
    grid = table(view)
    expect(grid).to_have_attribute("aria-rowcount", str(len(deep.names) + 1))
    assert grid.locator(".rows > .row").count() < 60
    grid.locator("[tabindex='0'][data-column]").focus()
    view.page.keyboard.press("Control+End")
    expect(grid.locator(".rows > .row", has_text="Pooler")).to_be_visible()
    assert grid.locator(".rows > .row").count() < 60


def test_a_region_of_the_front_is_dragged_and_goes_first(timed: Rich, view: View) -> None:
    timed.model.study.serving.clear()
    box = view.page.locator("[data-chart=front]").bounding_box()
    assert box is not None
    view.page.mouse.move(box["x"] + 120, box["y"] + 60)
    view.page.mouse.down()
    view.page.mouse.move(box["x"] + 260, box["y"] + 90, steps=4)
    view.page.mouse.up()
    first = view.page.get_by_role("button", name=re.compile("Measure .* first"))
    expect(first).to_be_visible()
    assert view.messages("load_plan") == []
    first.click()
    sent = view.last("prioritise")
    assert 8e6 < sent["low"] < sent["high"] < 30e6
    expect(first).to_be_hidden()
    view.set("queue", {"rows": [], "priority": {"low": sent["low"], "high": sent["high"], "text": "9 to 12 MB"}})
    expect(view.page.locator(".pd-region.standing")).to_be_visible()
    expect(view.page.locator(".pd-legend .chip")).to_contain_text("first: 9 to 12 MB")
    view.page.locator(".pd-legend").get_by_role("button", name="No sizes first any more").click()
    assert view.last("prioritise") == {"type": "prioritise", "low": 0, "high": 0}


def test_a_region_of_the_front_by_keys(timed: Rich, view: View) -> None:
    chart = view.page.locator("[data-chart=front]")
    chart.focus()
    view.page.keyboard.press("ArrowRight")
    for _ in range(3):
        view.page.keyboard.press("Shift+ArrowRight")
    expect(view.page.get_by_role("button", name=re.compile("Measure .* first"))).to_be_visible()
    view.page.keyboard.press("Escape")
    expect(view.page.get_by_role("button", name=re.compile("Measure .* first"))).to_be_hidden()
    view.page.keyboard.press("Shift+ArrowRight")
    view.page.keyboard.press("Enter")
    assert view.last("prioritise")["high"] > view.last("prioritise")["low"] > 0
    expect(chart).to_be_focused()


def test_plans_that_wait_are_reordered_and_taken_back(timed: Rich, view: View) -> None:
    timed.model.study.serving.clear()
    row = {"title": "", "size": "9 MB", "predicted": "0.1", "state": "waits", "words": "waits", "can": ["first", "remove"], "own": True}
    rows = [row | {"digest": digest, "label": f"<i>{digest}</i>"} for digest in ("aa", "bb")]
    view.set("queue", {"rows": rows, "count": "2 waiting", "note": "", "priority": None, "empty": ""})
    view.page.get_by_role("tab", name="Search").click()
    lines = view.page.locator(".pd-queue tbody tr")
    expect(lines.first).to_contain_text("<i>aa</i>")
    lines.nth(1).get_by_role("button", name="Measure first").click()
    assert view.last("queue_first") == {"type": "queue_first", "digest": "bb"}
    lines.nth(0).get_by_role("button", name="Take back").focus()
    view.page.keyboard.press("Enter")
    assert view.last("queue_remove") == {"type": "queue_remove", "digest": "aa"}


def test_a_chart_is_taken_away_as_table_code_and_picture(timed: Rich, view: View) -> None:
    menu = view.page.locator(".pd-pareto").get_by_role("button", name="Take the chart away")
    menu.click()
    view.page.get_by_role("menuitem", name="Show as table").click()
    sheet = view.page.get_by_role("dialog", name="Pareto front as a table")
    expect(sheet.get_by_role("columnheader").nth(2)).to_have_text("Size, MB (log)")
    assert sheet.locator("tbody tr").count() > 20
    view.page.keyboard.press("Escape")
    expect(sheet).to_have_count(0)
    expect(menu).to_be_focused()
    for kind in ("PNG", "SVG"):
        menu.click()
        with view.page.expect_download() as download:
            view.page.get_by_role("menuitem", name=f"Save as {kind}").click()
        assert download.value.suggested_filename == f"front.{kind.lower()}"
        assert len(download.value.path().read_bytes()) > 5000
    menu.click()
    view.page.get_by_role("menuitem", name="Copy as plotly figure").click()
    assert view.last("copy_figure") == {"type": "copy_figure", "name": "front"}


def test_cells_of_the_interactions_are_reached_by_arrows(timed: Rich, view: View) -> None:
    view.page.get_by_role("tab", name="Search").click()
    view.drawn("interactions")
    groups = timed.state()["interactions"]["groups"]
    view.page.locator("[data-chart=interactions]").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowRight"):
        view.page.keyboard.press(key)
    expect(view.page.locator("[data-chart=interactions] .pd-pick")).to_be_visible()
    view.page.keyboard.press("Enter")
    assert view.last("select")["layers"] == [*groups[2], *groups[1]]
