"""The view Compare in Chromium: plans are added and removed by mouse and by keyboard, flipped answers are filtered, shown and heard."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from browser.compared import Compared, as_pictures, as_sounds, compared_study
from browser.harness import View

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compared_study(tmp_path_factory.mktemp("compared")).folder


@pytest.fixture
def compared(folder: Path, view: View) -> Compared:
    """Three plans, the view of them open."""
    shown = Compared(compared_study(folder))
    view.mount(shown.state())
    view.page.get_by_role("tab", name="Compare").click()
    shown.answer(view)
    return shown


def heads(view: View) -> list[str]:
    return view.page.locator(".pd-metrics thead .name").all_inner_texts()


def test_shift_click_on_the_front_adds_a_plan(compared: Compared, view: View) -> None:
    view.page.get_by_role("tab", name="Overview").click()
    view.drawn("front")
    before = compared.model.plan
    view.page.keyboard.down("Shift")
    view.page.mouse.click(*view.point("measured", 5))
    view.page.keyboard.up("Shift")
    assert view.last("load_plan")["shift"] is True
    compared.settled(view)
    assert compared.model.plan == before
    assert len(compared.model.comparison.added) == 3
    expect(view.page.locator(".pd-status .said")).to_contain_text("is D in the view Compare")
    compared.answer(view, "front_plan")
    expect(view.page.locator(".pd-pareto .pd-legend .pd-letter")).to_have_text(["B", "C", "D"])
    expect(view.page.locator("[data-chart=front] .textpoint", has_text=re.compile("^[BCD]$"))).to_have_text(["B", "C", "D"])
    view.page.get_by_role("tab", name="Compare").click()
    expect(view.page.locator(".pd-metrics thead .pd-letter")).to_have_text(["A", "B", "C", "D"])
    expect(view.page.locator(".pd-layers figure")).to_have_count(4)
    expect(view.page.get_by_role("button", name="Add plan")).to_be_disabled()


def test_a_plan_is_removed_and_the_letters_move_up(compared: Compared, view: View) -> None:
    view.page.get_by_role("button", name="Remove B", exact=False).click()
    compared.settled(view)
    assert compared.model.comparison.added == (compared.uniform(3),)
    expect(view.page.locator(".pd-metrics thead .pd-letter")).to_have_text(["A", "B"])
    assert heads(view) == ["this plan", "uniform W3"]
    expect(view.page.locator(".pd-flips thead .pd-letter")).to_have_text(["A", "B"])


def test_the_menu_adds_by_keyboard_alone(compared: Compared, view: View) -> None:
    page = view.page
    page.get_by_role("tab", name="Compare").focus()
    opener = page.get_by_role("button", name="Add plan")
    for _ in range(30):
        if opener.evaluate("(node) => node === document.activeElement"):
            break
        page.keyboard.press("Tab")
    expect(opener).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Find a plan")).to_be_focused()
    page.keyboard.type("w5")
    expect(page.get_by_role("menuitem")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("menuitem")).to_be_focused()
    page.keyboard.press("Enter")
    assert view.last("compare_add") == {"type": "compare_add", "digest": compared.uniform(5)}
    compared.settled(view)
    assert heads(view)[3] == "uniform W5"
    assert compared.model.comparison.added[2] == compared.uniform(5)


def test_escape_leaves_the_menu_as_it_was(compared: Compared, view: View) -> None:
    opener = view.page.get_by_role("button", name="Add plan")
    opener.click()
    view.page.keyboard.type("nothing like that")
    expect(view.page.get_by_text("No plan of that name.")).to_be_visible()
    view.page.keyboard.press("Escape")
    expect(opener).to_be_focused()
    expect(opener).to_have_attribute("aria-expanded", "false")
    assert view.messages("compare_add") == []


def test_measured_and_predicted_never_look_alike(compared: Compared, view: View) -> None:
    compared.do("bits", layers=[compared.names[0]], bits=8)
    compared.answer(view, "compare", "flips")
    row = view.page.get_by_role("row", name="KL to original")
    styles = row.locator("td").evaluate_all("(cells) => cells.slice(1).map((cell) => getComputedStyle(cell).fontStyle)")
    assert styles == ["italic", "normal", "normal"]
    expect(view.page.locator(".pd-metrics .states .chip.warn")).to_have_text("stale, 1 edit")
    expect(view.page.locator(".pd-flips thead .pd-letter")).to_have_text(["B", "C"])
    view.page.get_by_role("button", name="Measure A, this plan").click()
    assert view.last("compare_measure")["digest"] == compared.model.plan.digest
    compared.answer(view, "compare")
    expect(view.page.locator(".pd-metrics .states .chip.live")).to_have_text("measuring")
    compared.do("undo")


def test_flipped_answers_are_filtered_and_more_are_shown(compared: Compared, view: View) -> None:
    rows = view.page.locator(".pd-flips tbody tr")
    every = rows.count()
    assert every == 50
    view.page.get_by_role("button", name="Show", exact=False).click()
    compared.answer(view, "flips")
    assert rows.count() > every
    kinds = view.page.get_by_role("radiogroup", name="Which answers")
    kinds.get_by_role("radio", name="Any change").focus()
    view.page.keyboard.press("ArrowRight")
    assert view.last("flips") == {"type": "flips", "id": "wrong"}
    compared.answer(view, "flips")
    expect(kinds.get_by_role("radio", name="Newly wrong")).to_be_focused()
    assert compared.model.comparison.kind == "wrong"
    view.page.keyboard.press("ArrowRight")
    compared.answer(view, "flips")
    texts = rows.all_inner_texts()
    assert texts
    assert len(texts) == int(kinds.get_by_role("radio", name="Newly right").inner_text().split()[-1])
    assert rows.locator("td[data-kind=right] b").count() >= len(texts)


def test_the_answers_are_copied_as_a_dataframe(compared: Compared, view: View) -> None:
    view.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = view.page.locator(".pd-flips header button", has_text="Copy as DataFrame")
    button.click()
    compared.answer(view, "flips")
    expect(view.page.locator(".pd-flips header")).to_contain_text("Copied")
    space: dict = {}
    exec(compared.model.comparison.copied["text"], space)
    assert list(space["flips"].columns[:3]) == ["sample", "input", "label"]


def test_pictures_are_really_shown(compared: Compared, view: View) -> None:
    view.set("flips", as_pictures(compared)["flips"])
    thumb = view.page.locator(".pd-flips .thumb").first
    expect(thumb).to_be_visible()
    view.page.wait_for_function(
        "() => [...root.querySelectorAll('.pd-flips .thumb')].every((image) => image.complete && image.naturalWidth === 28)"
    )
    assert view.page.locator(".pd-flips .thumb").count() == 50


def test_a_sound_is_asked_for_and_plays(compared: Compared, view: View) -> None:
    as_sounds(compared)
    view.set("flips", compared.state()["flips"])
    view.page.evaluate(
        "() => { window.played = []; HTMLMediaElement.prototype.play = function () { played.push(this.src); return Promise.resolve(); } }"
    )
    button = view.page.get_by_role("button", name="Play clip").first
    button.focus()
    view.page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "true")
    assert view.last("hear")["sample"] == int(button.get_attribute("data-sample") or -1)
    assert view.page.evaluate("() => played.length") == 0
    compared.answer(view, "flips")
    view.page.wait_for_function("() => played.length === 1 && played[0].startsWith('data:audio/wav;base64,')")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")


def test_text_of_the_data_stays_text(tmp_path: Path, view: View) -> None:
    shown = Compared(compared_study(tmp_path, hostile=True))
    state = shown.state()
    hostile = '<img src=x onerror="window.pwned = 1">'
    state["flips"]["rows"][0] |= {"label": hostile, "index": hostile}
    state["flips"]["rows"][0]["original"] |= {"answer": hostile}
    state["compare"]["plans"][1] |= {"name": hostile, "title": hostile}
    state["compare"] |= {"notices": [hostile], "sub": hostile}
    view.mount(state)
    view.page.get_by_role("tab", name="Compare").click()
    expect(view.page.locator(".pd-flips .said").first).to_contain_text(hostile)
    expect(view.page.locator(".pd-metrics .notices")).to_have_text(hostile)
    assert view.page.locator(".pd-compare img").count() == 0
    assert view.page.evaluate("() => window.pwned") is None


def test_a_hovered_layer_lights_in_every_grid(compared: Compared, view: View) -> None:
    name = compared.names[4]
    cells = view.page.locator(f'.pd-layers td[data-layer="{name}"]')
    expect(cells).to_have_count(3)
    cells.nth(1).hover()
    expect(view.page.locator(".pd-layers td.hover")).to_have_count(3)
    expect(cells.nth(0)).to_have_class("hover")


def test_a_narrow_page_says_whose_answer_it_is(compared: Compared, view: View) -> None:
    view.page.set_viewport_size({"width": 620, "height": 900})
    said = (
        view.page.locator(".pd-flips tbody tr")
        .first.locator("td.answer")
        .evaluate_all("(cells) => cells.map((cell) => getComputedStyle(cell, '::before').content)")
    )
    assert said == ['"Original"', '"A"', '"B"', '"C"']
    assert view.page.evaluate("() => document.documentElement.scrollWidth") <= 620
