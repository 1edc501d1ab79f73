"""The front of a refined study and the view of its search, in Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from browser.harness import View
from browser.rich import Rich, refined_study
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
