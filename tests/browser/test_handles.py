"""The three handles on the screen: what they show, what they do, what they refuse and why. The view model answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from browser import state as states
from browser.answered import FC1, OUT, Rich, rich_study
from browser.harness import View

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_study(tmp_path_factory.mktemp("rich") / "study").folder


@pytest.fixture
def rich(folder: Path, view: View) -> Rich:
    return Rich.at_four_bits(rich_study(folder), view)


def shown(view: View, handle: str) -> str:
    return view.page.locator(f"[data-handle={handle}] output").inner_text()


def values(view: View) -> list[str]:
    return [shown(view, handle) for handle in ("bits", "sparsity", "rank")]


def list_of(view: View, name: str) -> Locator:
    return view.page.get_by_role("combobox", name=name, exact=True)


def test_the_buttons_of_each_handle(rich: Rich, view: View) -> None:
    assert values(view) == ["4", "none", "none"]
    for name, wanted, now in (
        ("Sparser", "int4g64+2:4-wanda", ["4", "2:4", "none"]),
        ("More bits", "int8g64+2:4-wanda", ["8", "2:4", "none"]),
        ("Fewer bits", "int4g64+2:4-wanda", ["4", "2:4", "none"]),
        ("Higher rank", "int4g64+2:4+eora16", ["4", "2:4", "16"]),
        ("Denser", "int4g64+eora16", ["4", "none", "16"]),
        ("Lower rank", "int4g64", ["4", "none", "none"]),
    ):
        view.page.get_by_role("button", name=name, exact=True).click()
        rich.answer(view)
        assert rich.scheme(OUT) == wanted
        assert values(view) == now
    view.page.get_by_role("button", name="Undo").click()
    rich.answer(view)
    assert rich.scheme(OUT) == "int4g64+eora16"


def test_what_is_not_offered_is_refused_with_the_scheme_that_it_would_need(rich: Rich, view: View) -> None:
    rich.do("scheme", layers=[rich.names[OUT]], scheme="int4g64+2:4+eora16")
    rich.answer(view)
    view.forget()
    rich.seen = 0
    more = view.page.get_by_role("button", name="More bits")
    expect(more).to_have_attribute("aria-disabled", "true")
    expect(more).to_have_attribute("title", "8 bit: that would need int8g64+2:4+eora16 among the study's schemes")
    more.click(force=True)
    assert view.messages("step") == []
    expect(view.page.locator(".sr[aria-live]")).to_have_text(re.compile("8 bit: that would need"))
    expect(view.page.get_by_role("button", name="Higher rank")).to_have_attribute("title", re.compile("would need int4g64\\+2:4\\+eora32"))
    expect(view.page.get_by_role("button", name="Denser", exact=True)).not_to_have_attribute("aria-disabled", "true")


def test_the_list_of_a_handle_says_what_would_not_stay(rich: Rich, view: View) -> None:
    rich.do("scheme", layers=[rich.names[OUT]], scheme="int4g64+2:4+eora16")
    rich.answer(view)
    texts = list_of(view, "Bits").locator("option:not([hidden])").all_inner_texts()
    assert texts == [
        "2 bit, changes sparsity and rank",
        "3 bit, changes sparsity",
        "4 bit",
        "8 bit, changes rank",
    ]
    list_of(view, "Bits").select_option("8")
    assert view.last("bits") == {"type": "bits", "bits": 8, "layers": [rich.names[OUT]]}
    rich.answer(view)
    assert rich.scheme(OUT) == "int8g64+2:4-wanda"
    expect(view.page.locator(".pd-status .said")).to_have_text("also changed: Wanda, no EoRA of rank 16 any more")
    expect(view.page.locator(".sr[aria-live]")).to_have_text(re.compile("also changed"))


def test_keys_of_the_handles(rich: Rich, view: View) -> None:
    view.cell(rich.names[OUT]).click()
    for key, wanted in (
        ("s", "int4g64+2:4-wanda"),
        ("r", "int4g64+2:4+eora16"),
        ("r", "int4g64+2:4-wanda"),
        ("8", "int8g64+2:4-wanda"),
        ("-", "int4g64+2:4-wanda"),
    ):
        view.page.keyboard.press(key)
        rich.answer(view)
        assert rich.scheme(OUT) == wanted
    view.page.keyboard.press("Control+z")
    rich.answer(view)
    assert rich.scheme(OUT) == "int8g64+2:4-wanda"


def test_arrows_on_a_handle_step_it_and_keep_the_focus(rich: Rich, view: View) -> None:
    rank = list_of(view, "Rank")
    rank.focus()
    for key, wanted in (("ArrowUp", "16"), ("ArrowRight", "16"), ("ArrowDown", "none")):
        rank.press(key)
        rich.answer(view)
        assert shown(view, "rank") == wanted
        expect(rank).to_be_focused()
    assert [step["by"] for step in view.messages("step")] == [1, -1]  # rank 32 is offered at 3 bits alone
    assert len({step["gesture"] for step in view.messages("step")}) == 2
    view.page.keyboard.press("s")  # letters still choose from the list, as everywhere
    assert view.messages("cycle") == []


def test_a_selection_shows_what_differs_and_moves_each_from_where_it_stands(rich: Rich, view: View) -> None:
    rich.do("scheme", layers=[rich.names[FC1]], scheme="int4g64+2:4-wanda")
    rich.do("select", layers=[rich.names[OUT], rich.names[FC1]], mode="replace")
    rich.answer(view)
    assert values(view) == ["4", "mixed", "none"]
    expect(view.page.locator("select.scheme option").first).to_have_text("several schemes")
    view.page.get_by_role("button", name="Higher rank").click()
    rich.answer(view)
    assert (rich.scheme(OUT), rich.scheme(FC1)) == ("int4g64+eora16", "int4g64+2:4+eora16")
    view.page.get_by_role("button", name="Undo").click()
    rich.answer(view)
    assert (rich.scheme(OUT), rich.scheme(FC1)) == ("int4g64", "int4g64+2:4-wanda")


def test_locked_layers_stay_and_fused_ones_move_together(rich: Rich, view: View) -> None:
    query, key = rich.names[1:3]
    rich.do("lock", layers=[rich.names[OUT]], locked=True)
    rich.do("select", layers=[query, rich.names[OUT]], mode="replace")
    rich.answer(view)
    view.page.get_by_role("button", name="Sparser").click()
    rich.answer(view)
    assert (rich.scheme(1), rich.scheme(2), rich.scheme(OUT)) == ("int4g64+2:4-wanda", "int4g64+2:4-wanda", "int4g64")
    expect(view.cell(key)).to_have_attribute("aria-label", "Block 0 k: 4 bit, 2 of 4 kept, edited")


def test_the_menu_has_every_scheme_grouped_by_the_handles(rich: Rich, view: View) -> None:
    groups = view.page.locator("select.scheme optgroup").evaluate_all("(all) => all.map((one) => [one.label, one.children.length])")
    assert groups[0][0] == "bits alone"
    assert {name for name, _ in groups} == {
        "bits alone",
        "rank 16",
        "rank 32",
        "2 of 4 kept",
        "50% zeros",
        "2 of 4 kept, rank 16",
    }
    assert sum(size for _, size in groups) == len(rich.model.choices.schemes)
    view.page.get_by_label("Scheme of the selection").select_option("int4g64-gptq+2:4")
    rich.answer(view)
    assert rich.scheme(OUT) == "int4g64-gptq+2:4"


def test_cells_and_legend_tell_sparsity_and_rank(rich: Rich, view: View) -> None:
    layer = rich.names[OUT]
    legend = view.page.locator(".pd-scale .sign")
    expect(legend.first).to_be_hidden()
    rich.do("scheme", layers=[layer], scheme="int4g64+2:4+eora16")
    rich.answer(view)
    expect(view.cell(layer)).to_have_attribute("aria-label", "Block 0 o: 4 bit, 2 of 4 kept, rank 16, edited")
    expect(view.cell(layer).locator(".sparsity")).to_have_text("2:4")
    expect(view.cell(layer).locator(".rank")).to_have_text("r16")
    assert [text.replace("\u00a0", " ") for text in legend.all_inner_texts()] == ["2:4 sparse", "r16 rank"]
    boxes = [view.cell(layer).locator(part).bounding_box() for part in (".rank", ".v", ".sparsity")]
    assert all(box for box in boxes)
    left, middle, right = boxes
    assert left["x"] + left["width"] <= middle["x"] + middle["width"]
    assert middle["x"] <= right["x"]
    assert left["x"] + left["width"] < right["x"]


def test_the_table_beside_the_plan_is_grouped(rich: Rich, view: View) -> None:
    view.cell(rich.names[OUT]).hover()
    tip = view.page.get_by_role("tooltip")
    expect(tip).to_contain_text("Block 0 o, 4 bit")
    assert tip.locator("tr.group").all_inner_texts() == [
        "bits alone",
        "rank 16",
        "rank 32",
        "2 of 4 kept",
        "2 of 4 kept, rank 16",
        "50% zeros",
    ]
    expect(tip.locator("tr.now")).to_have_count(1)
    rich.do("scheme", layers=[rich.names[OUT]], scheme="int4g64+2:4+eora16")
    rich.answer(view)
    expect(tip).to_contain_text("Block 0 o, 4 bit, 2 of 4 kept, rank 16")
    assert tip.locator("tr.now td").first.inner_text() == "4"
    box = tip.bounding_box()
    assert box is not None
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 900


def test_a_study_of_bits_alone_keeps_its_one_line(view: View) -> None:
    view.mount(states.minilm())
    expect(view.page.locator(".pd-handles")).to_be_hidden()
    expect(view.page.locator(".pd-handle:visible")).to_have_count(1)
    view.cell(states.name(0, "q")).click()
    for key in "sr":
        view.page.keyboard.press(key)
    assert view.messages("cycle") == []
    expect(view.page.locator(".pd-status kbd", has_text=re.compile("^[SR]$")).first).to_be_hidden()
    assert shown(view, "bits") == "3 bit"


@pytest.mark.parametrize("width", [1280, 900, 620])
def test_the_handles_stay_on_one_line(rich: Rich, view: View, width: int) -> None:
    view.page.set_viewport_size({"width": width, "height": 900})
    tops = view.page.locator(".pd-handle").evaluate_all("(all) => all.map((one) => one.getBoundingClientRect().top)")
    assert len(set(tops)) == 1
    inside = view.page.evaluate(
        "() => { const end = document.querySelector('.pd-plan').getBoundingClientRect().right; return [...document.querySelectorAll('.pd-handle, .pd-tools .btn')].every((e) => e.getBoundingClientRect().right <= end - 8) }"
    )
    assert inside


def test_every_control_of_the_handles_has_a_name_and_a_state(rich: Rich, view: View) -> None:
    for name in ("Bits", "Sparsity", "Rank"):
        expect(view.page.get_by_role("group", name=name, exact=True)).to_be_visible()
        expect(list_of(view, name)).to_be_enabled()
    rich.do("select", layers=[], mode="replace")
    rich.answer(view)
    for name in ("Bits", "Sparsity", "Rank"):
        expect(list_of(view, name)).to_be_disabled()
    assert values(view) == ["–", "–", "–"]
