"""The front of a refined study and the view of its search, in Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from browser.answered import Rich, refined_study
from browser.harness import View
from fake_study import FakeStudy

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return refined_study(tmp_path_factory.mktemp("refined")).folder


@pytest.fixture
def searched(folder: Path, view: View) -> Rich:
    """A refined study, shown."""
    rich = Rich(FakeStudy(folder, timed=True))
    view.mount(rich.state())
    view.drawn("front")
    return rich


def test_the_front_switches_from_size_to_latency_and_back(searched: Rich, view: View) -> None:
    title = "() => root.querySelector('[data-chart=front] .xtitle').textContent"
    axis = view.page.get_by_role("radiogroup", name="Horizontal axis")
    axis.get_by_role("radio", name="Latency").click()
    assert view.last("x") == {"type": "x", "id": "seconds"}
    searched.answer(view, "front")
    view.page.wait_for_function(f"() => ({title})().startsWith('Latency')")
    expect(axis.get_by_role("radio", name="Latency")).to_have_attribute("aria-checked", "true")
    view.page.keyboard.press("ArrowLeft")
    searched.answer(view, "front")
    view.page.wait_for_function(f"() => ({title})().startsWith('Size')")


def test_a_refined_plan_is_loaded_by_a_click_and_undone(searched: Rich, view: View) -> None:
    before = dict(searched.model.editor.schemes)
    view.page.mouse.click(*view.point("refined", 2))
    searched.answer(view)
    wanted = [d for d in searched.model.measured_plans() if searched.model.record.plans[d].found_by.startswith("refined")][2]
    assert searched.model.plan is not None
    assert searched.model.plan.digest == wanted
    searched.do("undo")
    assert searched.model.editor.schemes == before


def test_a_row_of_the_history_is_loaded_by_mouse_and_by_keyboard(searched: Rich, view: View) -> None:
    view.page.get_by_role("tab", name="Overview").focus()
    for _ in range(2):  # round by the end
        view.page.keyboard.press("ArrowLeft")
    expect(view.page.get_by_role("tabpanel", name="Search")).to_be_visible()
    expect(view.page.get_by_role("tabpanel", name="Overview")).to_be_hidden()
    rows = view.page.locator(".pd-history tbody tr")
    digests = [step.plan.digest for step in searched.model.history.improvements[::-1]]
    expect(rows).to_have_count(len(digests))
    rows.nth(2).click()
    assert view.last("load_plan")["digest"] == digests[2]
    searched.answer(view, "history")
    expect(rows.nth(2)).to_have_attribute("aria-current", "true")
    assert searched.model.plan is not None
    assert searched.model.plan.digest == digests[2]
    rows.nth(2).get_by_role("button").focus()
    view.page.keyboard.press("ArrowDown")
    view.page.keyboard.press("Enter")
    searched.answer(view, "history")
    assert searched.model.plan.digest == digests[3]
    expect(rows.nth(3).get_by_role("button")).to_be_focused()
    searched.do("undo")
    assert searched.model.plan.digest == digests[2]


def test_names_in_the_history_stay_text(searched: Rich, view: View) -> None:
    hostile = '<img src=x onerror="window.pwned = 1">'
    state = searched.state()["history"]
    state["rows"][0] |= dict.fromkeys(("what", "title", "budget", "size", "origin", "before", "measured"), hostile)
    view.set("history", state | {"note": hostile, "count": hostile})
    view.page.get_by_role("tab", name="Search").click()
    expect(view.page.locator(".pd-history tbody tr").first.get_by_role("button")).to_have_text(hostile)
    assert view.page.locator(".pd-search img").count() == 0
    assert view.page.evaluate("() => window.pwned") is None


def test_rankings_are_switched_and_a_pair_selects_its_layers(searched: Rich, view: View) -> None:
    searched.model.rank()
    view.page.get_by_role("tab", name="Search").click()
    assert view.last("opened") == {"type": "opened", "id": "search"}
    view.set("rankings", searched.state()["rankings"])
    cells = view.page.locator(".pd-triangle td[data-step]")
    scores = searched.model.rankings.scores if searched.model.rankings else ()
    expect(cells).to_have_count(len(scores) * (len(scores) - 1) // 2)
    before = cells.all_inner_texts()
    view.page.get_by_role("radiogroup", name="What is ranked").get_by_role("radio", name="Layers at int4g64").click()
    assert cells.all_inner_texts() != before
    view.drawn("interactions")
    pair = view.page.get_by_role("group", name="Strongest pairs").get_by_role("button").first
    pair.focus()
    view.page.keyboard.press("Enter")
    assert view.last("select")["layers"] == searched.state()["interactions"]["pairs"][0]["layers"]
