"""The explorer's modules: how they are joined, what they show of the state, and what must never happen."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

import paredown_widgets
from browser import state as states
from browser.harness import View
from paredown_widgets import _assets

pytestmark = pytest.mark.browser
HOSTILE = '<img src=x onerror="window.pwned = 1"><script>window.pwned = 1</script>&amp;'
SOURCES = sorted(Path(paredown_widgets.__file__).parent.glob("*.js"))
Q0, K0, V0, FC2_4, Q1 = (states.name(0, "q"), states.name(0, "k"), states.name(0, "v"), states.name(4, "fc2"), states.name(1, "q"))


# ---- the sources --------------------------------------------------------------------------------------------------------------


def test_top_level_names_are_unique_across_the_modules() -> None:
    declared = Counter(
        name
        for source in SOURCES
        for name in re.findall(r"^(?:export )?(?:async )?(?:function\*?|const|let|class) (\w+)", source.read_text(), re.MULTILINE)
    )
    assert len(declared) > 50
    assert [name for name, times in declared.items() if times > 1] == []


def test_every_module_is_part_of_a_widget_and_comes_after_what_it_needs() -> None:
    orders = {stem: _assets.modules(stem) for stem in ("explorer", "plotly_bundle")}
    assert {stem for order in orders.values() for stem in order} == {source.stem for source in SOURCES}
    for last, order in orders.items():
        assert order[-1] == last
        for stem in order:
            for needed in re.findall(r'from "\./(\w+)\.js"', _assets._source(stem)):
                assert order.index(needed) < order.index(stem)


def test_joined_module_has_one_export_and_no_imports_left() -> None:
    code = _assets.esm("explorer")
    assert re.findall(r"^export .*", code, re.MULTILINE) == ["export default { render };"]
    assert not re.search(r"^import ", code, re.MULTILINE)


def test_circles_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {"a": 'import { b } from "./b.js";\n', "b": 'import { a } from "./a.js";\n'}
    monkeypatch.setattr(_assets, "_source", sources.__getitem__)
    with pytest.raises(ValueError, match="a -> b -> a"):
        _assets.modules("a")


def test_modules_parse_no_markup() -> None:
    for source in SOURCES:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", source.read_text()), source.name


def test_every_style_rule_stays_under_the_explorer() -> None:
    bare = re.sub(r"/\*.*?\*/", "", _assets.css(), flags=re.DOTALL)
    selectors = [part.strip() for rule in re.findall(r"([^{}]+)\{", bare) for part in rule.split(",")]
    outside = [one for one in selectors if one and not one.startswith(("@", ".pd")) and "max-width" not in one]
    assert len(selectors) > 150
    assert outside == []


# ---- the rest of the state ----------------------------------------------------------------------------------------------------


def test_ack_comes_after_drawing(shown: View) -> None:
    before = shown.page.evaluate("() => Number(root.querySelector('[data-chart=front]').dataset.draws)")
    shown.page.evaluate(
        """(front) => { model.answer = (m) => { if (m.type === "ack" && m.seq === 7) window.drawsAtAck = Number(root.querySelector('[data-chart=front]').dataset.draws); };
        model.set("front", front); model.set("seq", 7); }""",
        states.front("kl"),
    )
    shown.page.wait_for_function("() => window.drawsAtAck !== undefined")
    assert shown.page.evaluate("window.drawsAtAck") == before + 1


def test_export_menu_greys_out_what_is_refused(shown: View) -> None:
    shown.page.get_by_role("button", name="Export").click()
    refused = shown.page.get_by_role("menuitem", name="compressed-tensors")
    expect(refused).to_have_attribute("aria-disabled", "true")
    expect(refused).to_contain_text("Block 3 q: 3 bit is not in the format")
    refused.dispatch_event("click")
    assert shown.messages("export") == []
    shown.page.get_by_role("menuitem", name="Plan as JSON").click()
    assert shown.messages("export") == [{"type": "export", "target": "plan"}]
    shown.set("export", states.minilm()["export"] | {"status": "Written to exports/plan.json", "kind": "ok"})
    expect(shown.page.locator(".pd-menu.wide .status")).to_have_text("Written to exports/plan.json")
    shown.page.mouse.click(640, 500)
    expect(shown.page.locator(".pd-menu.wide")).to_be_hidden()


def test_failure_shows_cause_remedy_and_log(shown: View) -> None:
    run = states.minilm()["run"] | {
        "state": "failed",
        "message": "Out of memory at block 3 fc1",
        "remedy": "use a batch of 16",
        "can": ["resume"],
    }
    shown.set("run", run)
    line = shown.page.locator(".pd-run")
    expect(line).to_contain_text("Out of memory at block 3 fc1")
    expect(line).to_contain_text("use a batch of 16")
    line.get_by_role("button", name="Resume").click()
    assert shown.messages("resume")
    line.get_by_role("button", name="Log").click()
    expect(shown.page.get_by_role("tab", name="Log")).to_have_attribute("aria-selected", "true")
    expect(shown.page.locator(".pd-log .lines > div")).to_have_count(4)


def test_error_of_a_callback_is_shown_and_dismissed(shown: View) -> None:
    shown.set("error", {"text": "The budget is below the smallest plan", "remedy": "Raise it to 6.14 MB."})
    banner = shown.page.get_by_role("alert")
    expect(banner).to_contain_text("Raise it to 6.14 MB.")
    banner.get_by_role("button", name="Dismiss").click()
    assert shown.messages("dismiss_error")
    shown.set("error", None)
    expect(banner).to_be_hidden()


def test_copied_code_reaches_the_clipboard(shown: View) -> None:
    shown.page.evaluate(
        "() => Object.defineProperty(navigator, 'clipboard', { configurable: true, value: { writeText: async (code) => { window.copied = code; } } })"
    )
    shown.set("clipboard", {"n": 1, "text": "plan = explorer.plan"})
    expect(shown.page.locator(".pd-actions")).to_contain_text("Copied")
    assert shown.page.evaluate("window.copied") == "plan = explorer.plan"


def test_empty_panels_say_what_will_appear(view: View) -> None:
    view.mount(states.idle())
    for sentence in (
        "The front appears here",
        "Curvature has not been estimated yet",
        "Each layer's predicted KL appears here",
        "The plan's size",
    ):
        expect(view.page.get_by_text(sentence)).to_be_visible()
    view.page.get_by_role("button", name="Run").click()
    assert view.messages("run")
    expect(view.page.get_by_role("button", name="Measure", exact=True)).to_be_disabled()
    view.set("front", states.front())
    view.drawn("front")


def test_nothing_at_all_is_drawn_without_a_word_from_python(view: View) -> None:
    view.mount({"theme": "light"})
    expect(view.page.get_by_text("The layers appear here once the model is loaded.")).to_be_visible()


def test_focus_and_selection_survive_updates(shown: View) -> None:
    field = shown.page.get_by_label("Filter layers")
    field.fill("block 3")
    field.evaluate("(node) => node.setSelectionRange(2, 4)")
    shown.page.evaluate("() => { window.kept = [...document.querySelectorAll('.pd-cell, .pd-srow, .pd-tbl td, .seg button')] }")
    for n, builder in enumerate((states.minilm, states.minilm), start=2):
        for trait, value in builder().items():
            shown.set(trait, value)
        shown.set("seq", n)
        shown.page.wait_for_function("(n) => model.messages.some((m) => m.type === 'ack' && m.seq === n)", arg=n)
    expect(field).to_be_focused()
    assert field.evaluate("(node) => [node.selectionStart, node.selectionEnd]") == [2, 4]
    assert shown.page.evaluate("() => window.kept.length > 90 && window.kept.every((node) => node.isConnected)")


def test_a_change_touches_only_what_changed(shown: View) -> None:
    shown.page.evaluate(
        """() => { window.touched = []; new MutationObserver((all) => touched.push(...all.map((m) => m.target.nodeType === 3 ? m.target.parentElement : m.target)))
        .observe(document.querySelector(".pd-plan"), { subtree: true, childList: true, attributes: true, characterData: true }); }"""
    )
    plan = states.plan()
    plan["cells"][Q0] |= {"text": "5", "bits": 5, "color": 4, "edited": True}
    shown.set("plan", plan)
    expect(shown.cell(Q0)).to_have_text("5")
    cells = shown.page.evaluate("() => [...new Set(touched.map((n) => n.closest('.pd-cell')?.dataset.layer ?? n.className))]")
    assert cells == [Q0]


def test_text_from_models_stays_text(view: View) -> None:
    state = states.minilm()
    first = state["grid"]["cells"][0]
    for place in (first, state["grid"]["blocks"][0], state["grid"]["columns"][0], state["grid"]["other"][0]):
        place["label"] = HOSTILE
    first["layer"] = first["title"] = HOSTILE
    state["plan"]["cells"][HOSTILE] = state["plan"]["cells"][Q0] | {"text": HOSTILE, "badge": HOSTILE}
    state["plan"] |= {"status": HOSTILE, "selection": [HOSTILE]}
    state["head"] |= dict.fromkeys(("model", "task", "notice", "baseline", "study"), HOSTILE)
    state["run"] |= {"label": HOSTILE, "detail": HOSTILE, "message": HOSTILE}
    state["error"] = {"text": HOSTILE, "remedy": HOSTILE}
    state["summary"] |= {"note": HOSTILE, "chip": {"text": HOSTILE, "kind": "warn"}}
    state["summary"]["rows"][0] |= {"label": HOSTILE, "measured": HOSTILE}
    state["sensitivity"]["rows"][0] |= {"layer": HOSTILE, "label": HOSTILE, "text": HOSTILE}
    state["spectrum"]["legend"][0] |= {"label": HOSTILE, "text": HOSTILE}
    state["log"]["lines"][0]["text"] = HOSTILE
    state["export"]["targets"][1]["refused"] = HOSTILE
    state["front"]["figure"]["data"][2]["customdata"] = [[HOSTILE, HOSTILE]] * 24
    view.mount(state)
    view.drawn("front")
    expect(view.page.locator(".pd-id b")).to_have_text(HOSTILE)
    view.page.mouse.move(*view.point("measured", 3))
    view.page.wait_for_timeout(200)
    view.cell(HOSTILE.replace('"', '\\"')).hover(force=True)
    expect(view.page.get_by_role("tooltip")).to_contain_text(HOSTILE)
    assert view.page.evaluate("() => window.pwned") is None
    assert view.page.locator(".pd img, .pd script").count() == 0


def test_keys_do_not_reach_the_notebook(shown: View) -> None:
    shown.page.evaluate(
        "() => { window.leaked = []; for (const name of ['keydown', 'keyup', 'keypress']) document.addEventListener(name, (e) => leaked.push(e.key)); }"
    )
    shown.cell(Q0).click()
    for key in ("4", "d", "d", "m", "Enter", "ArrowDown", "Escape", "Control+z", "x"):
        shown.page.keyboard.press(key)
    assert shown.page.evaluate("leaked") == []
    expect(shown.page.locator(".pd")).to_have_attribute("data-lm-suppress-shortcuts", "")
    shown.page.keyboard.press("Control+b")  # the notebook's own
    expect(shown.page.locator(".pd")).not_to_have_attribute("data-lm-suppress-shortcuts", "")


def test_deep_model_turns_the_plan_and_folds_the_blocks(view: View) -> None:
    view.mount(states.deep())
    view.drawn("front")
    rows = view.page.locator('[role=grid] > [role="row"]')
    expect(rows).to_have_count(8)
    view.page.get_by_label("Select Block 12").click()
    assert len(view.last("select")["layers"]) == 7
    view.cell("model.layers.3.self_attn.k_proj").click()
    view.page.keyboard.press("ArrowRight")
    assert view.last("select")["layers"] == ["model.layers.4.self_attn.k_proj"]
    expect(view.page.locator(".pd-srow")).to_have_count(32)
    block = view.page.locator('.pd-srow[data-opens="3"]')
    block.click()
    expect(block).to_have_attribute("aria-expanded", "true")
    expect(view.page.locator(".pd-srow")).to_have_count(39)


def test_very_deep_model_scrolls_inside_its_panel(view: View) -> None:
    view.mount(states.deep(80))
    grid = view.page.locator(".pd-grid[role=grid]")
    assert grid.evaluate("(node) => node.scrollWidth > node.clientWidth")
    assert view.page.evaluate("() => document.documentElement.scrollWidth") == 1280
    view.page.locator(".pd-cell").first.focus()
    view.page.keyboard.press("End")
    expect(view.cell("model.layers.79.self_attn.q_proj")).to_be_in_viewport()


def test_grid_is_one_tab_stop_with_roles_and_labels(shown: View) -> None:
    assert shown.page.locator('[role=grid] [tabindex="0"]').count() == 1
    assert shown.page.locator('.groups [tabindex="0"]').count() == 1
    expect(shown.page.locator(".pd-grid[role=grid]")).to_have_attribute("aria-multiselectable", "true")
    expect(shown.cell(FC2_4)).to_have_attribute("aria-label", "Block 4 fc2: 6 bit, edited")
    assert shown.page.evaluate(
        "() => [...document.querySelectorAll('.pd button')].every((b) => b.textContent.trim() || b.getAttribute('aria-label'))"
    )


@pytest.mark.parametrize("width", [1280, 900, 620])
def test_nothing_sticks_out(browser: Browser, width: int) -> None:
    view = View(browser, width)
    view.mount(states.minilm())
    view.drawn("front")
    wide = view.page.evaluate(
        "() => [...document.querySelectorAll('.pd *')].filter((e) => e.checkVisibility() && !e.closest('svg, .sr') && e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.className)"
    )
    assert wide == []
    assert view.problems == []
    view.page.close()


def test_inside_a_shadow_root_messages_go_through_the_queue(view: View) -> None:
    view.mount(states.minilm(), shadow=True)
    view.drawn("front")
    expect(view.cell(Q0)).to_have_css("height", "33px")
    assert view.page.evaluate("() => getComputedStyle(root.querySelector('.main-svg')).position") == "absolute"
    view.cell(Q0).click()
    view.cell(K0).click()
    view.page.keyboard.press("4")
    items = view.messages()
    assert [message["layers"] for message in items if message["type"] == "select"] == [[Q0], [K0]]
    assert [message["n"] for message in items] == list(range(1, len(items) + 1))
    expect(view.cell(K0)).to_be_focused()
    view.page.mouse.click(*view.point("measured", 4))
    assert view.last("load_plan")["digest"] == "digest4"
    view.set("heard", len(items))  # what Python has does not travel again
    view.page.keyboard.press("5")
    assert view.messages()[0]["n"] > len(items)


def test_panel_sends_objects_as_text(view: View) -> None:
    state = {name: value if isinstance(value, (str, int)) else json.dumps(value) for name, value in states.minilm().items()}
    view.mount(state, shadow=True)
    view.drawn("front")
    expect(view.page.locator(".pd-srow")).to_have_count(38)
    summary = states.minilm()["summary"]
    summary["rows"][0]["predicted"] = "7.77 MB"
    view.set("summary", json.dumps(summary))
    expect(view.page.locator(".pd-tbl td.pred").first).to_have_text("7.77 MB")


def test_layers_outside_of_the_blocks_come_last_whatever_the_order(view: View) -> None:
    state = states.minilm()
    rows = state["sensitivity"]["rows"]
    outside = [row for row in rows if row["block"] is None]
    assert len(outside) > 1
    state["sensitivity"]["rows"] = [outside[0], *(row for row in rows if row["block"] is not None), *outside[1:]]
    view.mount(state)
    shown = view.page.locator(".pd-srow")
    expect(shown).to_have_count(len(rows))
    assert shown.evaluate_all("(rows) => rows.map((row) => row.dataset.layer)")[-len(outside) :] == [row["layer"] for row in outside]
    view.set("sensitivity", {**state["sensitivity"], "order": "largest"})
    expect(shown).to_have_count(len(rows))


def test_taking_it_down_leaves_nothing_listening(shown: View) -> None:
    shown.page.evaluate("() => cleanup()")
    assert shown.page.evaluate("() => Object.values(model.listeners).every((list) => list.length === 0)")
    assert shown.page.locator(".pd-host").count() == 0
    shown.set("front", states.front("kl"))
    shown.page.wait_for_timeout(100)
    assert shown.messages() == []
