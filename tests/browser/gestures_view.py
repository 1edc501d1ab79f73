"""Gestures around the plan: budget, what is shown, the front, menus, the run, the other views, the window. Each waits for its effect, as in `gestures_plan`."""

from __future__ import annotations

import re

from browser.person import TABS, WITHIN, Person

UNDER = """(plot, [x, y]) => { const full = plot._fullLayout, box = plot.getBoundingClientRect(), near = [];
  plot._fullData.forEach((trace, i) => { if (trace.visible === true && trace.meta?.clickable) plot.calcdata[i].forEach((p, k) => {
    const own = trace.customdata?.[k], at = [full.xaxis._offset + full.xaxis.c2p(p.x) + box.left, full.yaxis._offset + full.yaxis.c2p(p.y) + box.top];
    if (own && at.every(Number.isFinite)) near.push({ digest: Array.isArray(own) ? own[0] : own, x: at[0], y: at[1], far: x === null ? 0 : Math.hypot(at[0] - x, at[1] - y) }); }); });
  return near; }"""


# ---- budget -------------------------------------------------------------------------------------------------------------------


def _moved(one: Person, before: float) -> None:
    one.until(
        lambda python, screen: (
            python["budget"] != before
            and abs(screen["budget"] - python["budget"] / (1 if python["unit"] == "ms" else 1e6)) < 0.02 * screen["budget"]
        )
    )


def budget_keys(one: Person) -> None:
    thumb, screen, before = one.pd.get_by_role("slider"), one.screen(), one.python()["budget"]
    thumb.focus()
    one.now()
    thumb.press("ArrowLeft" if screen["budget"] > 9 else "ArrowRight")
    _moved(one, before)


def budget_drag(one: Person) -> None:
    thumb, before = one.pd.get_by_role("slider"), one.python()["budget"]
    thumb.scroll_into_view_if_needed()
    box = thumb.bounding_box()
    track = one.pd.locator(".pd-track").bounding_box()
    assert box is not None
    assert track is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    to = track["x"] + track["width"] * one.draw.uniform(0.3, 0.9)
    if abs(to - x) < 10:
        return
    one.now()
    one.page.mouse.move(x, y)
    one.page.mouse.down()
    one.page.mouse.move(to, y, steps=5)
    one.page.mouse.up()
    _moved(one, before)


def budget_typed(one: Person) -> None:
    field, before = one.pd.locator(".pd-budget input"), one.python()
    if before["unit"] != "MB":
        one.pd.get_by_label("Unit of the budget").select_option("MB")
        before, _ = one.until(lambda python, _: python["unit"] == "MB")
    amount = one.draw.uniform(8, 16)
    one.now()
    field.fill(f"{amount:.2f}")
    field.press("Enter")
    one.until(lambda python, screen: abs(python["budget"] - 1e6 * amount) < 2e4 and abs(screen["budget"] - amount) < 0.02)


# ---- what is shown ------------------------------------------------------------------------------------------------------------


def go_to_tab(one: Person) -> None:
    other = [name for name in TABS if name != one.screen()["tab"]]
    one.now()
    one.tab(one.draw.choice(other))


def tab_keys(one: Person) -> None:
    at = TABS.index(one.screen()["tab"])
    one.pd.get_by_role("tab", name=TABS[at].capitalize()).focus()
    one.now()
    one.page.keyboard.press("ArrowRight")
    one.until(lambda _, screen: screen["tab"] == TABS[(at + 1) % len(TABS)])


def colour(one: Person) -> None:
    one.grid()
    field = one.pd.get_by_label("Colour by")
    wanted = one.draw.choice(field.evaluate("(list) => [...list.options].map((option) => option.value)"))
    one.now()
    field.select_option(wanted)
    one.until(lambda python, _: python["color_by"] == wanted)


def _radio(one: Person, label: str, key: str) -> None:
    group, now = one.pd.get_by_role("radiogroup", name=label), one.screen()[key]
    choices = group.get_by_role("radio").evaluate_all("(nodes) => nodes.map((node) => node.dataset.option)")
    if not choices:  # a plan that keeps every layer has no order of costs
        return
    wanted = one.draw.choice([choice for choice in choices if choice != now])
    one.now()
    group.locator(f'[data-option="{wanted}"]').click()
    one.until(lambda python, screen: python[key] == wanted == screen[key])


def vertical(one: Person) -> None:
    one.tab("overview")
    _radio(one, "Vertical axis", "y")


def horizontal(one: Person) -> None:
    one.tab("overview")
    _radio(one, "Horizontal axis", "x")


def order(one: Person) -> None:
    one.tab("overview")
    _radio(one, "Order", "order")


def spectrum(one: Person) -> None:
    one.tab("overview")
    _radio(one, "Layers shown", "spectrum")


def sensitivity(one: Person) -> None:
    one.tab("overview")
    field = one.pd.locator(".pd-sens select").first
    if not field.is_visible():  # a plan that keeps every layer costs nothing
        return
    wanted = one.draw.choice(field.evaluate("(list) => [...list.options].map((option) => option.value)"))
    one.now()
    field.select_option(wanted)
    one.until(lambda python, screen: python["sensitivity"] == wanted == screen["sensitivity"])


# ---- the front ----------------------------------------------------------------------------------------------------------------


def _aim(one: Person) -> tuple[float, float]:
    """Where a point of the front is that no other is near, and the digest that a click there means by then."""
    one.tab("overview")
    one.pd.locator("[data-chart=front]").scroll_into_view_if_needed()
    points = one.pd.locator("[data-chart=front] .pd-plot").evaluate(UNDER, [None, None])
    own = one.python()["digest"]
    point = one.draw.choice([point for point in points if point["digest"] != own])
    return point["x"], point["y"]


def _pressed(one: Person, x: float, y: float) -> set[str]:
    """Press there, and say which plans were within reach while the pointer was down and nothing was drawn."""
    one.page.mouse.move(x, y)
    one.now()
    one.page.mouse.down()
    points = one.pd.locator("[data-chart=front] .pd-plot").evaluate(UNDER, [x, y])
    one.page.mouse.up()
    near = sorted(points, key=lambda point: point["far"])
    return {point["digest"] for point in near if point["far"] <= min(14.0, near[0]["far"] + 0.01)}


def click_point(one: Person) -> None:
    hit = _pressed(one, *_aim(one))
    if hit:  # else it slipped away before the pointer was down
        one.until(lambda python, _: python["digest"] in hit)


def shift_click(one: Person) -> None:
    if len(one.python()["added"]) == 3:
        remove_plan(one)
    at = _aim(one)
    one.page.keyboard.down("Shift")
    try:
        hit = _pressed(one, *at)
    finally:
        one.page.keyboard.up("Shift")
    if hit:
        one.until(lambda python, _: bool(hit & set(python["added"])))


def chart_keys(one: Person) -> None:
    one.tab("overview")
    before = one.python()
    one.pd.locator("[data-chart=front]").focus()
    for _ in range(one.draw.randrange(1, 5)):
        one.page.keyboard.press("ArrowRight")
    one.now()
    one.page.keyboard.press("Enter")
    one.until(lambda python, _: python["place"] != before["place"] or python["measured"])


def brush(one: Person) -> None:
    """Brush sizes, have them measured first, and take that back."""
    one.tab("overview")
    if one.python()["x"] != "bytes":
        one.pd.get_by_role("radiogroup", name="Horizontal axis").locator("[data-option=bytes]").click()
        one.until(lambda python, screen: python["x"] == "bytes" == screen["x"])
    chart = one.pd.locator("[data-chart=front]")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] * one.draw.uniform(0.2, 0.5), box["y"] + box["height"] * 0.4
    one.page.mouse.move(x, y)
    one.page.mouse.down()
    one.page.mouse.move(x + 90, y + 5, steps=4)
    one.page.mouse.up()
    one.now()
    one.pd.get_by_role("button", name=re.compile("Measure .* first")).click()
    one.until(lambda python, screen: python["priority"] and screen["region"])
    one.pd.locator(".pd-legend").get_by_role("button", name="No sizes first any more").click()
    one.until(lambda python, screen: not python["priority"] and not screen["region"])


# ---- menus --------------------------------------------------------------------------------------------------------------------


def export_menu(one: Person) -> None:
    one.now()
    one.pd.get_by_role("button", name="Export", exact=True).click()
    one.until(lambda _, screen: screen["menus"] == 1)
    one.pd.locator(".pd-menu.wide [data-target]").first.wait_for(timeout=1e3 * WITHIN)
    one.page.keyboard.press("Escape")
    one.until(lambda _, screen: screen["menus"] == 0)


def chart_table(one: Person) -> None:
    one.tab("overview")
    one.pd.locator(".pd-pareto").get_by_role("button", name="Take the chart away").click()
    one.now()
    one.pd.get_by_role("menuitem", name="Show as table").first.click()
    one.pd.get_by_role("dialog", name="Pareto front as a table").wait_for(timeout=1e3 * WITHIN)
    one.page.keyboard.press("Escape")
    one.until(lambda _, screen: screen["menus"] == 0)


def copy_python(one: Person) -> None:
    before = one.python()["copied"]
    one.now()
    one.pd.get_by_role("button", name="Copy as Python").click()
    one.until(lambda python, _: python["copied"] == before + 1)


# ---- the run ------------------------------------------------------------------------------------------------------------------


def pause_resume(one: Person) -> None:
    one.now()
    one.pd.get_by_role("button", name="Pause after this step").click()
    one.until(lambda python, screen: python["state"] == "paused" and "Resume" in screen["run"])
    one.pd.get_by_role("button", name="Resume").click()
    one.until(lambda python, screen: python["state"] == "running" and "Resume" not in screen["run"])


def cancel_resume(one: Person) -> None:
    one.now()
    one.pd.locator(".pd-run").get_by_role("button", name="Cancel").click()
    one.until(lambda python, screen: python["state"] == "cancelled" and "Run" in screen["run"])
    one.pd.get_by_role("button", name="Run", exact=True).click()
    one.until(lambda python, screen: python["state"] == "running" and "Run" not in screen["run"])


# ---- other views --------------------------------------------------------------------------------------------------------------


def add_plan(one: Person) -> None:
    one.tab("compare")
    if len(one.python()["added"]) == 3:
        remove_plan(one)
    before = one.python()["added"]
    one.pd.get_by_role("button", name="Add plan").click()
    items = one.pd.locator(".pd-plans [data-digest]")
    wanted = items.nth(one.draw.randrange(min(8, items.count()))).get_attribute("data-digest")
    one.now()
    one.pd.locator(f'.pd-plans [data-digest="{wanted}"]').first.click()
    one.until(lambda python, screen: python["added"] == [*before, wanted] and screen["letters"] == "ABCD"[: len(before) + 2])


def remove_plan(one: Person) -> None:
    one.tab("compare")
    before = one.python()["added"]
    if not before:
        return
    letter = one.draw.choice("BCD"[: len(before)])
    one.now()
    one.pd.locator(".pd-metrics").get_by_role("button", name=re.compile(f"Remove {letter},")).click()
    one.until(lambda python, screen: len(python["added"]) == len(before) - 1 and screen["letters"] == "ABCD"[: len(before)])


def flips(one: Person) -> None:
    one.tab("compare")
    if one.pd.get_by_role("radiogroup", name="Which answers").is_visible():
        _radio(one, "Which answers", "kind")


def open_layer(one: Person) -> None:
    one.grid()
    layer = one.draw.choice(list(one.python()["layers"]))
    cell = one.cell(layer)
    if one.draw.random() < 0.5:
        cell.click()
        one.now()
        one.page.keyboard.press("Enter")
    else:
        one.now()
        cell.dblclick()
    one.until(lambda python, screen: python["opened"] == layer and screen["tab"] == "layer")


def walk_layers(one: Person) -> None:
    one.tab("layer")
    python, _ = one.until(lambda python, screen: screen["page"] == python["opened"])  # the next of the page that is seen
    names = list(python["layers"])
    at = names.index(python["opened"]) if python["opened"] in names else 0
    if at + 1 >= len(names):
        return
    one.now()
    one.pd.get_by_role("button", name="Next layer").click()
    one.until(lambda python, _: python["opened"] == names[at + 1])


def layer_scheme(one: Person) -> None:
    """A row of a layer's table of schemes."""
    layer = one.picked()
    if layer is None:
        return
    one.tab("layer")
    one.until(lambda python, _: python["opened"] == layer)
    wanted = one.draw.choice(["int3g64", "nf4g64", "int4g64+2:4-wanda"])
    one.now()
    one.pd.locator(f'.pd-schemes tr[data-scheme="{wanted}"] button').click()
    one.until(lambda python, _: python["layers"][layer]["scheme"] == wanted)


# ---- the window ---------------------------------------------------------------------------------------------------------------


def resize(one: Person) -> None:
    """Narrower and back; the front is drawn again."""
    one.tab("overview")
    for width in (one.draw.choice([640, 900, 1100]), 1304):
        before = one.screen()["draws"]
        one.now()
        one.page.set_viewport_size({"width": width, "height": 900})
        one.until(lambda _, screen, before=before: screen["draws"] > before)


def turn_dark(one: Person) -> None:
    """The system's theme; hosts that do not follow it keep theirs."""
    for scheme in ("dark", "light"):
        one.now()
        one.page.emulate_media(color_scheme=scheme)
        one.until(lambda _, screen, scheme=scheme: screen["theme"] == scheme)
