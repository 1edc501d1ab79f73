"""What each gesture on the plan and the budget sends: the explorer's modules in Chromium with a model of our own."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from browser import state as states
from browser.harness import View

pytestmark = pytest.mark.browser
Q0, K0, V0, FC2_4, Q1 = (states.name(0, "q"), states.name(0, "k"), states.name(0, "v"), states.name(4, "fc2"), states.name(1, "q"))


# ---- selection ----------------------------------------------------------------------------------------------------------------


def test_click_selects_one_and_ctrl_click_toggles(shown: View) -> None:
    shown.cell(Q0).click()
    assert shown.last("select") == {"type": "select", "layers": [Q0], "mode": "replace"}
    shown.cell(K0).click(modifiers=["Control"])
    assert shown.last("select") == {"type": "select", "layers": [K0], "mode": "toggle"}
    expect(shown.cell(Q0)).to_have_attribute("aria-selected", "true")
    expect(shown.cell(K0)).to_have_attribute("aria-selected", "true")
    assert shown.messages("step") == []


def test_shift_click_selects_the_rectangle(shown: View) -> None:
    shown.cell(K0).click()
    shown.cell(states.name(1, "v")).click(modifiers=["Shift"])
    assert shown.last("select")["layers"] == [states.name(block, role) for block in (0, 1) for role in ("k", "v")]


def test_labels_select_their_block_and_role(shown: View) -> None:
    shown.page.get_by_label("Select Block 2").click()
    assert shown.last("select") == {"type": "select", "layers": [states.name(2, role) for role in states.ROLES], "mode": "replace"}
    shown.page.get_by_label("Select fc1").click(modifiers=["Shift"])
    assert shown.last("select") == {"type": "select", "layers": [states.name(block, "fc1") for block in range(6)], "mode": "extend"}


def test_filter_dims_and_enter_selects_what_matches(shown: View) -> None:
    field = shown.page.get_by_label("Filter layers")
    field.fill("block 3-5 fc*")
    wanted = [states.name(block, role) for block in (3, 4, 5) for role in ("fc1", "fc2")]
    expect(shown.cell(Q0)).to_have_class(re.compile(r"\bdim\b"))
    expect(shown.cell(wanted[0])).not_to_have_class(re.compile(r"\bdim\b"))
    expect(shown.page.locator(f'.pd-srow[data-layer="{Q0}"]')).to_have_class(re.compile(r"\bdim\b"))
    field.press("Enter")
    assert shown.last("select")["layers"] == wanted
    assert shown.last("filter") == {"type": "filter", "text": "block 3-5 fc*"}


def test_sensitivity_row_selects_its_layer(shown: View) -> None:
    shown.page.locator(f'.pd-srow[data-layer="{V0}"]').click()
    assert shown.last("select")["layers"] == [V0]


def test_hover_lights_the_same_layer_everywhere(shown: View) -> None:
    shown.cell(FC2_4).hover()
    expect(shown.page.locator(f'.pd-srow[data-layer="{FC2_4}"]')).to_have_class(re.compile(r"\bhover\b"))
    expect(shown.page.get_by_label("Select fc2")).to_have_class(re.compile(r"\bon\b"))
    tip = shown.page.get_by_role("tooltip")
    expect(tip).to_contain_text("Block 4 fc2, 6 bit")
    expect(tip).to_contain_text(FC2_4)
    shown.page.mouse.move(640, 10)
    expect(tip).to_be_hidden()
    expect(shown.page.locator(".pd-srow.hover")).to_have_count(0)


def test_selection_of_a_fused_group_comes_from_python(shown: View) -> None:
    shown.cell(Q0).click()
    shown.set("plan", states.plan() | {"selection": [Q0, K0, V0]})
    expect(shown.cell(V0)).to_have_attribute("aria-selected", "true")
    shown.cell(K0).click(modifiers=["Control"])  # taken out here at once; the rest of the group by Python
    expect(shown.cell(K0)).to_have_attribute("aria-selected", "false")
    shown.set("plan", states.plan() | {"selection": []})
    expect(shown.page.locator(".pd-cell.sel")).to_have_count(0)


def test_a_selection_that_python_never_answers_is_given_up(shown: View) -> None:
    shown.cell(Q0).click()
    expect(shown.cell(Q0)).to_have_attribute("aria-selected", "true")
    expect(shown.cell(Q1)).to_have_attribute("aria-selected", "true", timeout=4000)
    expect(shown.cell(Q0)).to_have_attribute("aria-selected", "false")


def test_python_has_the_last_word_on_the_filter(shown: View) -> None:
    shown.page.get_by_label("Filter layers").fill("largest 1")
    shown.set("plan", states.plan() | {"filter": {"text": "largest 1", "matches": [FC2_4], "note": "1 of 38"}})
    expect(shown.page.locator(".hits")).to_have_text("1 of 38")
    expect(shown.page.locator(".pd-cell[data-layer]:not(.dim)")).to_have_count(1)


# ---- edits --------------------------------------------------------------------------------------------------------------------


def test_dragging_a_cell_steps_its_bits_in_one_gesture(shown: View) -> None:
    box = shown.cell(Q0).bounding_box()
    x, y = box["x"] + 10, box["y"] + 16
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    shown.page.mouse.move(x, y - 30, steps=6)
    shown.page.mouse.up()
    steps = shown.messages("step")
    assert [step["by"] for step in steps] == [1, 1]
    assert {tuple(step["layers"]) for step in steps} == {(Q0,)}
    assert len({step["gesture"] for step in steps}) == 1
    assert [message["mode"] for message in shown.messages("select")] == ["replace"]


def test_keys_edit_the_selection_and_leave_locked_layers(shown: View) -> None:
    shown.cell(Q0).click()
    shown.cell(V0).click(modifiers=["Control"])
    shown.page.keyboard.press("5")
    assert shown.last("bits") == {"type": "bits", "layers": [Q0], "bits": 5}
    shown.page.keyboard.press("7")
    assert len(shown.messages("bits")) == 1
    shown.page.keyboard.press("+")
    shown.page.keyboard.press("-")
    steps = shown.messages("step")
    assert [step["by"] for step in steps] == [1, -1]
    assert steps[0]["gesture"] != steps[1]["gesture"]
    shown.page.keyboard.press("l")
    assert shown.last("lock") == {"type": "lock", "layers": [Q0, V0], "locked": True}
    shown.page.keyboard.press("Control+z")
    shown.page.keyboard.press("Control+Shift+z")
    assert [message["type"] for message in shown.messages()][-2:] == ["undo", "redo"]
    shown.page.keyboard.press("m")
    shown.page.keyboard.press("f")
    assert [message["type"] for message in shown.messages()][-2:] == ["measure", "fill"]
    shown.page.keyboard.press("Escape")
    assert shown.last("select")["layers"] == []


def test_keys_typed_within_one_round_trip_act_on_the_lit_layer(shown: View) -> None:
    shown.cell(Q0).click()
    shown.page.keyboard.press("ArrowRight")
    shown.set("plan", states.plan())  # pushed by Python before it saw the two selections
    shown.page.keyboard.press("4")
    assert shown.last("bits") == {"type": "bits", "layers": [K0], "bits": 4}
    expect(shown.cell(K0)).to_be_focused()


def test_arrows_and_shift_arrows(shown: View) -> None:
    shown.cell(Q0).click()
    shown.page.keyboard.press("ArrowDown")
    assert shown.last("select")["layers"] == [Q1]
    shown.page.keyboard.press("Shift+ArrowRight")
    assert shown.last("select")["layers"] == [Q1, states.name(1, "k")]
    shown.page.keyboard.press("End")
    assert shown.last("select")["layers"] == [states.name(1, "fc2")]
    for _ in range(6):
        shown.page.keyboard.press("ArrowDown")
    assert shown.last("select")["layers"] == [states.EMBEDDINGS]
    expect(shown.cell(states.EMBEDDINGS)).to_be_focused()


def test_toolbar(shown: View) -> None:
    expect(shown.page.locator(".pd-tools .n")).to_have_text("2 selectedof 38")
    expect(shown.page.locator(".pd-tools output")).to_have_text("mixed")
    shown.page.get_by_label("More bits").click()
    assert shown.last("step")["layers"] == [Q1, FC2_4]
    shown.page.get_by_label("Scheme of the selection").select_option("int4g32")
    assert shown.last("scheme") == {"type": "scheme", "layers": [Q1, FC2_4], "scheme": "int4g32"}
    shown.page.get_by_label("Lock", exact=True).click()
    assert shown.last("lock")["locked"] is True
    shown.page.get_by_label("Back to measured").click()
    assert shown.last("reset") == {"type": "reset", "layers": [Q1, FC2_4]}
    shown.page.get_by_role("button", name="Undo").click()
    assert shown.messages("undo")
    expect(shown.page.get_by_role("button", name="Redo")).to_be_disabled()


def test_choices_of_the_panels(shown: View) -> None:
    shown.page.get_by_label("Colour by").select_option("trace")
    shown.page.get_by_role("radio", name="KL", exact=True).click()
    shown.page.get_by_role("radio", name="Largest").click()
    shown.page.get_by_role("radio", name="All", exact=True).click()
    shown.page.get_by_role("button", name="Measure", exact=True).click()
    shown.page.get_by_role("button", name="Fill the rest").click()
    shown.page.get_by_role("button", name="Pause after this step").click()
    shown.page.get_by_role("button", name="Cancel").click()
    shown.page.get_by_role("button", name="Copy as Python").click()
    sent = [message for message in shown.messages() if message["type"] != "ack"]
    assert sent == [
        {"type": "color_by", "id": "trace"},
        {"type": "y", "id": "kl"},
        {"type": "order", "id": "largest"},
        {"type": "spectrum_mode", "id": "all"},
        {"type": "measure"},
        {"type": "fill"},
        {"type": "pause"},
        {"type": "cancel"},
        {"type": "copy_python"},
    ]


# ---- budget -------------------------------------------------------------------------------------------------------------------


def test_dragging_the_budget_follows_at_once_and_sends_at_most_twenty_a_second(shown: View) -> None:
    thumb = shown.page.get_by_role("slider")
    box = thumb.bounding_box()
    x, y = box["x"] + 5, box["y"] + 10
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    started = shown.page.evaluate("performance.now()")
    shown.page.mouse.move(x - 120, y, steps=60)
    expect(shown.page.locator(".verdict b")).to_have_text(re.compile("over"))
    shown.page.mouse.up()
    seconds = (shown.page.evaluate("performance.now()") - started) / 1000
    sent = [message["amount"] for message in shown.messages("budget")]
    assert 2 <= len(sent) <= 20 * seconds + 3
    assert sent == sorted(sent, reverse=True)
    assert float(shown.page.get_by_label("Budget", exact=True).locator("input").input_value()) == pytest.approx(sent[-1], abs=0.006)
    assert shown.messages("select") == []


def test_budget_by_keys_and_typed(shown: View) -> None:
    thumb = shown.page.get_by_role("slider")
    thumb.focus()
    thumb.press("ArrowRight")
    assert shown.last("budget")["amount"] == 11.1
    expect(thumb).to_have_attribute("aria-valuetext", re.compile(r"11\.10 MB, 0\.78.MB under"))
    thumb.press("Home")
    shown.page.wait_for_timeout(80)
    assert shown.last("budget")["amount"] == 6.14
    field = shown.page.locator(".pd-budget input")
    field.fill("9.2")
    field.press("Enter")
    assert shown.last("budget")["amount"] == 9.2
    expect(shown.page.locator(".verdict b")).to_have_text("1.12\u00a0MB over")
    field.fill("nonsense")
    field.press("Enter")
    assert shown.last("budget")["amount"] == 9.2
