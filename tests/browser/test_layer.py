"""A layer's page in Chromium: opened, walked through, and its scheme set from the table and the chart. The view model answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from browser.answered import FC1, FC2, OUT, K, Rich, rich_study
from browser.harness import View

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_study(tmp_path_factory.mktemp("rich") / "study", blocks=2).folder


@pytest.fixture
def rich(folder: Path, view: View) -> Rich:
    return Rich.at_four_bits(rich_study(folder, blocks=2), view)


def answer(rich: Rich, view: View) -> None:
    rich.answer(view, "layer", "layer_spectrum")


def opened(rich: Rich, view: View, index: int) -> Locator:
    """The page of a layer, opened by Enter on its cell."""
    view.cell(rich.names[index]).focus()
    view.page.keyboard.press("Enter")
    answer(rich, view)
    page = view.page.get_by_role("tabpanel", name="Layer")
    expect(page.get_by_role("heading", level=2).first).to_have_text(rich.model.labels[rich.names[index]].text)
    return page


def test_enter_on_a_cell_opens_the_page_and_the_keyboard_goes_there(rich: Rich, view: View) -> None:
    page = opened(rich, view, FC2)
    expect(view.page.get_by_role("tab", name="Layer")).to_have_attribute("aria-selected", "true")
    expect(view.page.get_by_role("tabpanel", name="Overview")).to_be_hidden()
    assert view.last("opened") == {"type": "opened", "id": "layer", "layer": rich.names[FC2]}
    assert rich.model.selection == [rich.names[FC2]]
    expect(page.get_by_role("heading", name="Block 0 fc2")).to_be_focused()
    for chart in ("layer-spectrum", "layer-schemes", "layer-weights", "layer-inputs"):
        view.drawn(chart)
    expect(page.locator(".why")).to_have_text(
        re.compile(
            "^As sensitive as most: its loss at 4 bit is 1.3 times the median layer.s, although 1 of 1,536 input channels carries 13"
        )
    )


def test_a_double_click_and_the_tab_open_it_too(rich: Rich, view: View) -> None:
    view.cell(rich.names[FC1]).dblclick()
    answer(rich, view)
    heading = view.page.get_by_role("tabpanel", name="Layer").get_by_role("heading", level=2).first
    expect(heading).to_have_text("Block 0 fc1")
    view.page.get_by_role("tab", name="Overview").click()
    view.cell(rich.names[OUT]).click()
    view.page.get_by_role("tab", name="Layer").click()
    answer(rich, view)
    expect(heading).to_have_text("Block 0 o")
    view.page.get_by_role("tab", name="Overview").click()
    view.page.locator(f'.pd-srow[data-layer="{rich.names[FC2]}"]').dblclick()
    answer(rich, view)
    expect(heading).to_have_text("Block 0 fc2")


def test_arrows_and_buttons_walk_through_the_layers_and_the_selection_follows(rich: Rich, view: View) -> None:
    page = opened(rich, view, OUT)
    heading = page.get_by_role("heading", level=2).first
    for _ in range(3):  # faster than Python answers
        view.page.keyboard.press("ArrowRight")
    answer(rich, view)
    expect(heading).to_have_text("Block 1 q")
    assert rich.names[7] in rich.model.selection
    view.page.keyboard.press("ArrowLeft")
    answer(rich, view)
    expect(heading).to_have_text("Block 0 fc2")
    page.get_by_role("button", name="Previous layer").click()
    answer(rich, view)
    expect(heading).to_have_text("Block 0 fc1")
    expect(page.get_by_role("button", name="Next layer")).to_have_attribute("title", "Block 0 fc2 (→)")
    view.page.get_by_role("tab", name="Overview").click()
    expect(view.cell(rich.names[FC1])).to_have_attribute("aria-selected", "true")


def test_the_ends_of_the_model_are_the_ends_of_the_walk(rich: Rich, view: View) -> None:
    page = opened(rich, view, 0)
    expect(page.get_by_role("button", name="Previous layer")).to_be_disabled()
    view.page.keyboard.press("ArrowLeft")
    assert [m for m in view.messages("select") if m["layers"] != [rich.names[0]]] == []


def test_a_fused_layer_has_its_own_page_among_its_group(rich: Rich, view: View) -> None:
    page = opened(rich, view, K)
    expect(page.locator(".chips")).to_contain_text("decided with q, v")
    view.page.keyboard.press("ArrowRight")
    answer(rich, view)
    expect(page.get_by_role("heading", level=2).first).to_have_text("Block 0 v")


def test_a_row_sets_the_scheme_by_mouse_and_by_keyboard_and_is_undone(rich: Rich, view: View) -> None:
    page = opened(rich, view, FC2)
    rows = page.locator(".pd-schemes tbody tr")
    expect(page.locator(".pd-schemes tr[aria-current]")).to_have_attribute("data-scheme", "int4g64")
    rows.filter(has_text="4 bit NF").click()
    assert view.last("scheme") == {"type": "scheme", "layers": [rich.names[FC2]], "scheme": "nf4g64"}
    answer(rich, view)
    assert rich.scheme(FC2) == "nf4g64"
    expect(page.locator(".pd-schemes tr[aria-current]")).to_have_attribute("data-scheme", "nf4g64")
    page.locator(".pd-schemes button[tabindex='0']").focus()
    view.page.keyboard.press("ArrowDown")
    below = view.page.evaluate("() => document.activeElement.closest('tr').dataset.scheme")
    view.page.keyboard.press("Enter")
    answer(rich, view)
    assert rich.scheme(FC2) == below != "nf4g64"
    view.page.keyboard.press("Control+z")
    answer(rich, view)
    assert rich.scheme(FC2) == "nf4g64"


def test_a_point_of_the_curve_sets_its_scheme(rich: Rich, view: View) -> None:
    opened(rich, view, FC2)
    view.drawn("layer-schemes")
    view.page.mouse.click(*view.point("family:int", 0, "layer-schemes"))
    assert view.last("scheme") == {"type": "scheme", "layers": [rich.names[FC2]], "scheme": "int2g64"}
    answer(rich, view)
    assert rich.scheme(FC2) == "int2g64"


def test_the_handles_of_the_page_move_this_layer_alone(rich: Rich, view: View) -> None:
    view.page.get_by_role("tab", name="Overview").focus()
    rich.do("select", layers=[rich.names[FC1], rich.names[FC2]], mode="replace")
    rich.answer(view)
    page = opened(rich, view, FC2)
    page.get_by_role("button", name="Sparser", exact=True).click()
    assert view.last("step")["layers"] == [rich.names[FC2]]
    answer(rich, view)
    assert rich.scheme(FC2) == "int4g64+2:4-wanda"
    assert rich.scheme(FC1) == "int4g64"
    expect(page.locator("[data-handle=sparsity] output")).to_have_text("2:4")
    expect(page.locator(".pd-legend")).not_to_have_count(0)
    names = page.locator(".pd-layer-spectrum .pd-curves b")
    expect(names).to_have_text(["Block 0 fc2", "Block 0 fc1"])


def test_a_locked_layer_stays_and_says_why(rich: Rich, view: View) -> None:
    page = opened(rich, view, FC2)
    page.get_by_role("button", name="Lock this layer").click()
    answer(rich, view)
    view.forget()
    rich.seen = 0
    page.locator(".pd-schemes tbody tr").first.click()
    assert view.messages("scheme") == []
    expect(view.page.locator(".sr[aria-live]")).to_have_text("Locked: press L to unlock")
    page.get_by_role("button", name="Unlock this layer").click()
    answer(rich, view)
    assert rich.model.locked == []


def test_names_and_words_that_try_to_be_markup_stay_text(rich: Rich, view: View) -> None:
    hostile = '<img src=x onerror="window.pwned = 1">'
    opened(rich, view, FC2)
    state = rich.state()["layer"]
    state |= {"label": hostile, "chips": [hostile], "why": {"lead": hostile, "text": hostile}}
    state["table"] |= {
        "sub": hostile,
        "rows": [row | dict.fromkeys(("name", "title", "runtime", "reason", "size"), hostile) for row in state["table"]["rows"]],
    }
    state["schemes"] |= {"legend": [hostile]}
    state["weights"] |= {"sub": hostile, "title": hostile}
    view.set("layer", state)
    page = view.page.get_by_role("tabpanel", name="Layer")
    expect(page.get_by_role("heading", level=2).first).to_have_text(hostile)
    expect(page.locator(".pd-schemes tbody button").first).to_have_text(hostile)
    assert page.locator("img").count() == 0
    assert view.page.evaluate("() => window.pwned") is None


@pytest.mark.parametrize("width", [1280, 620])
def test_nothing_is_cut_and_nothing_overlaps(rich: Rich, view: View, width: int) -> None:
    view.page.set_viewport_size({"width": width, "height": 900})
    opened(rich, view, FC2)
    wide = view.page.evaluate(
        "() => [...document.querySelectorAll('.pd-layer *')].filter((e) => e.checkVisibility() && !e.closest('svg, .sr') && e.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert wide == 0
    cut = view.page.evaluate(
        "() => [...document.querySelectorAll('.pd-layer h2, .pd-layer .why, .pd-schemes td, .pd-schemes th button, .pd-layer .pd-legend')].filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent)"
    )
    assert cut == []


def test_a_number_colours_the_plan_and_is_printed_or_drawn_in_each_cell(rich: Rich, view: View) -> None:
    chooser = view.page.get_by_label("Colour by")
    assert chooser.locator("optgroup").count() > 3
    chooser.select_option("kurtosis")
    assert view.last("color_by") == {"type": "color_by", "id": "kurtosis"}
    rich.answer(view)
    cell = view.cell(rich.names[3])
    kurtosis = rich.model.record.profiles[rich.names[3]].weight_kurtosis
    expect(cell.locator(".amount")).to_have_text(f"{kurtosis:.2g}")
    expect(cell).to_have_attribute("aria-label", re.compile(f"Weight kurtosis, excess {kurtosis:.2g}"))
    chooser.select_option("bits")
    rich.answer(view)
    expect(cell.locator(".amount")).to_be_hidden()
