"""The spectrum's panel in Chromium: modes, matrices, the table, the question for the Hessian, and sensitivities by curvature."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from browser import state as states
from browser.harness import View

pytestmark = pytest.mark.browser
FC2_4, Q1, K1 = states.name(4, "fc2"), states.name(1, "q"), states.name(1, "k")


def drawn(page: Page) -> list[str]:
    """Uids of the traces on the screen, as they were before plotly's own."""
    return page.evaluate(
        "() => root.querySelector('[data-chart=spectrum] .pd-plot')._fullData.map((t) => t.uid.slice(1).replace(/_([0-9a-f]+)_/g, (_, c) => String.fromCodePoint(parseInt(c, 16))))"
    )


def show(view: View, *layers: str, **choice: Any) -> None:
    """What Python answers to a person's choice; waits until it is drawn."""
    draws = "() => Number(root.querySelector('[data-chart=spectrum]').dataset.draws ?? 0)"
    before, state = view.page.evaluate(draws), states.spectrum(*layers, **choice)
    view.set("spectrum", state)
    if state["figure"]["data"] and not state["empty"]:
        view.page.wait_for_function(f"(before) => ({draws})() > before", arg=before)


def test_densities_with_bands_and_rungs_are_drawn(shown: View) -> None:
    show(shown, FC2_4, Q1, matrix="hessian")
    uids = drawn(shown.page)
    assert uids == [f"{kind}:{layer}" for layer in (FC2_4, Q1) for kind in ("band", "density")] + [
        f"{kind}:{layer}" for layer in (FC2_4, Q1) for kind in ("rungs", "half")
    ]
    ticks = shown.page.locator("[data-chart=spectrum] .xtick text").all_text_contents()
    assert "0" in ticks
    assert {"−0.1", "0.1"} <= set(ticks)
    expect(shown.page.locator("[data-chart=spectrum]")).to_have_attribute(
        "aria-label", re.compile("^Spectral density of the Hessian matrix. Block 4 fc2")
    )


def test_ticks_do_not_touch(shown: View) -> None:
    for width in (1280, 900, 620):
        shown.page.set_viewport_size({"width": width, "height": 900})
        for choice in ({"mode": "selected"}, {"mode": "all"}):
            show(shown, **choice)
            shown.page.wait_for_timeout(150)
            for axis in ("xtick", "ytick"):
                boxes = [tick.bounding_box() for tick in shown.page.locator(f"[data-chart=spectrum] .{axis} text").all()]
                side, length = ("x", "width") if axis == "xtick" else ("y", "height")
                boxes.sort(key=lambda box: box[side])
                assert all(left[side] + left[length] < right[side] + 1 for left, right in pairwise(boxes)), (
                    width,
                    choice,
                    axis,
                )


def test_modes_and_matrices_are_asked_for_and_shown(shown: View) -> None:
    page = shown.page
    modes = page.locator(".pd-spec")  # the plan has a table as well
    for mode, label in (("all", "All"), ("table", "Table"), ("selected", "Selected")):
        modes.get_by_role("radio", name=label, exact=True).click()
        assert shown.last("spectrum_mode") == {"type": "spectrum_mode", "id": mode}
        show(shown, mode=mode)
        expect(modes.get_by_role("radio", name=label, exact=True)).to_have_attribute("aria-checked", "true")
        assert page.locator("[data-chart=spectrum]").is_visible() == (mode != "table")
        assert page.locator(".pd-spectable").is_visible() == (mode == "table")
    page.get_by_role("radio", name="Gauss–Newton").click()
    assert shown.last("spectrum_matrix") == {"type": "spectrum_matrix", "id": "ggn"}
    show(shown, matrix="ggn")
    assert f"density:{FC2_4}" in drawn(page)
    assert f"band:{FC2_4}" not in drawn(page)  # exact: no probes, no band
    expect(page.locator(".pd-spec .pd-curves .remark")).to_contain_text("Exact, 64 samples")


def test_the_panel_keeps_its_place_whatever_is_shown(shown: View) -> None:
    heights = set()
    for layers, choice in (
        ((FC2_4,), {}),
        ((FC2_4, Q1), {}),
        ((Q1, K1, FC2_4), {}),
        ((), {"mode": "all"}),
        ((), {"mode": "table"}),
        ((Q1,), {"matrix": "hessian", "share": 0.2}),
    ):
        show(shown, *layers, **choice)
        shown.page.wait_for_timeout(60)
        heights.add(shown.page.locator(".pd").bounding_box()["height"])
    assert len(heights) == 1


def test_the_table_sorts_and_its_rows_select(shown: View) -> None:
    page = shown.page
    show(shown, mode="table")
    rows = page.locator(".pd-spectable tbody tr")
    expect(rows).to_have_count(38)
    expect(rows.first).to_contain_text("Embeddings")
    heads = page.locator(".pd-spectable thead th")
    heads.nth(1).get_by_role("button").click()
    expect(heads.nth(1)).to_have_attribute("aria-sort", "descending")
    expect(heads.first).to_have_attribute("aria-sort", "none")
    ranked = sorted(states.spectrum(mode="table")["table"]["rows"], key=lambda row: -row["cells"][1]["value"])
    assert rows.evaluate_all("(all) => all.map((row) => row.dataset.layer)") == [row["layer"] for row in ranked]
    heads.nth(1).get_by_role("button").press("Enter")
    expect(heads.nth(1)).to_have_attribute("aria-sort", "ascending")
    expect(rows.first).to_contain_text(re.compile(r"k.*−", re.DOTALL))  # the lowest trace is a negative one
    layer = rows.nth(3).get_attribute("data-layer")
    rows.nth(3).click()
    assert shown.last("select") == {"type": "select", "layers": [layer], "mode": "replace"}
    expect(rows.nth(3)).to_have_class(re.compile("sel"))


def test_rows_without_a_value_stay_last(shown: View) -> None:
    show(shown, mode="table", matrix="hessian", share=0.2)
    column = shown.page.locator(".pd-spectable thead th").nth(3).get_by_role("button")
    for _ in range(2):
        column.click()
        values = shown.page.locator(".pd-spectable tbody td:nth-child(4)").all_inner_texts()
        assert values[0] != "–"
        assert values.count("–") == 30
        assert values[-30:] == ["–"] * 30


def test_a_ridge_is_picked_by_its_rung(shown: View) -> None:
    show(shown, mode="all")
    index = shown.page.evaluate(
        "(layer) => root.querySelector('[data-chart=spectrum] .pd-plot')._fullData.find((t) => t.uid === 'uall').customdata.indexOf(layer)",
        FC2_4,
    )
    shown.page.mouse.click(*shown.point("all", index, "spectrum"))
    assert shown.last("select")["layers"] == [FC2_4]


def test_the_hessian_is_asked_for_or_the_button_says_why_not(shown: View) -> None:
    button = shown.page.get_by_role("button", name="Estimate Hessian")
    button.click()
    assert shown.messages("estimate") == [{"type": "estimate"}]
    reason = "Another process works on this study; what it estimates appears here"
    shown.set("spectrum", states.spectrum() | {"estimate": {"enabled": False, "label": "Estimate Hessian", "title": reason}})
    expect(button).to_have_attribute("aria-disabled", "true")
    expect(button).to_have_attribute("title", reason)
    button.click(force=True)
    assert len(shown.messages("estimate")) == 1


def test_a_missing_hessian_is_a_sentence_and_not_an_empty_chart(shown: View) -> None:
    show(shown, Q1, matrix="hessian", share=0.2)
    expect(shown.page.locator(".pd-spec .pd-empty")).to_contain_text("The Hessian of Block 1 q has not been estimated yet")
    expect(shown.page.locator("[data-chart=spectrum]")).to_be_hidden()
    expect(shown.page.get_by_role("radio", name="Gauss–Newton")).to_be_visible()


def test_bars_below_zero_grow_to_the_left_of_it(shown: View) -> None:
    state = states.sensitivity()
    state["rows"][1] |= {"value": -0.002, "low": -0.003, "high": -0.001, "text": "−2.00"}
    state |= {
        "kind": "trace:hessian",
        "kinds": [{"id": "kl", "label": "Predicted KL"}, {"id": "trace:hessian", "label": "Trace × ‖ΔW‖², Hessian"}],
    }
    shown.set("sensitivity", state)
    expect(shown.page.locator(".pd-srow .v").nth(1)).to_have_text("−2.00")
    tracks = shown.page.locator(".pd-srow .t")
    bar = [tracks.nth(i).locator("i").bounding_box() for i in (0, 1, 5)]
    zero = bar[0]["x"]
    assert bar[2]["x"] == pytest.approx(zero, abs=0.6)
    assert bar[1]["x"] + bar[1]["width"] == pytest.approx(zero, abs=0.6)
    tick = next(one for one in shown.page.locator(".pd-saxis .t span").all() if one.inner_text() == "0").bounding_box()
    assert tick["x"] + tick["width"] / 2 == pytest.approx(zero, abs=1.5)
    shown.page.get_by_label("What the bars show").select_option("kl")
    assert shown.last("sensitivity") == {"type": "sensitivity", "id": "kl"}


def test_the_verdict_is_a_sign_and_a_word_beside_its_colour(shown: View) -> None:
    show(shown, Q1, FC2_4)
    trust = shown.page.locator(".pd-spec .pd-curves .trust")
    texts = trust.all_inner_texts()
    assert all(text.startswith("trust: ") for text in texts)
    signs = trust.evaluate_all("(all) => all.map((one) => getComputedStyle(one, '::before').content)")
    assert all(len(sign.strip('"')) == 1 for sign in signs)
