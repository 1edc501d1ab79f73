"""Charts in Chromium: clicks while they stream, the keyboard, themes, pictures."""

from __future__ import annotations

import base64
from io import BytesIO

import pytest
from PIL import Image
from playwright.sync_api import expect

from browser import state as states
from browser.harness import View

pytestmark = pytest.mark.browser
Q0, K0, V0, FC2_4, Q1 = (states.name(0, "q"), states.name(0, "k"), states.name(0, "v"), states.name(4, "fc2"), states.name(1, "q"))


def test_click_on_a_point_loads_its_plan(shown: View) -> None:
    shown.page.mouse.click(*shown.point("measured", 4))
    assert shown.last("load_plan") == {"type": "load_plan", "digest": "digest4", "shift": False}
    x, y = shown.point("uniform", 3)
    shown.page.keyboard.down("Shift")
    shown.page.mouse.click(x + 9, y - 6)
    shown.page.keyboard.up("Shift")
    assert shown.last("load_plan") == {"type": "load_plan", "digest": "uniform8", "shift": True}
    shown.forget()
    shown.page.mouse.click(x + 9, y + 60)
    assert shown.messages("load_plan") == []


def test_no_click_is_lost_while_the_chart_streams(shown: View) -> None:
    shown.page.evaluate(
        """(front) => { let n = 1; window.stream = setInterval(() => { const next = structuredClone(front);
        next.figure.data[2].y[0] += 0.01 * ++n; model.set("front", next); model.set("seq", n); }, 100); }""",
        states.front(),
    )
    for k in range(1, 13):
        x, y = shown.point("measured", k)
        shown.page.mouse.move(x, y)
        shown.page.mouse.down()
        shown.page.wait_for_timeout(70)
        shown.page.mouse.up()
    shown.page.evaluate("clearInterval(stream)")
    clicked = [message["digest"] for message in shown.messages("load_plan")]
    assert len(clicked) == 12
    assert len(shown.messages("ack")) >= 5


def test_nothing_is_redrawn_under_a_pressed_pointer(shown: View) -> None:
    draws = "() => Number(root.querySelector('[data-chart=front]').dataset.draws)"
    shown.page.mouse.move(*shown.point("measured", 4))
    shown.page.mouse.down()
    before = shown.page.evaluate(draws)
    shown.set("front", states.front("kl"))
    shown.page.wait_for_timeout(150)
    assert shown.page.evaluate(draws) == before
    shown.page.mouse.up()
    shown.page.wait_for_function(f"(before) => ({draws})() > before", arg=before)
    assert shown.messages("load_plan")[0]["digest"] == "digest4"


def test_points_are_reached_by_keyboard(shown: View) -> None:
    chart = shown.page.locator("[data-chart=front]")
    chart.focus()
    chart.press("ArrowRight")
    expect(shown.page.locator("[data-chart=front] .pd-pick")).to_be_visible()
    chart.press("Enter")
    assert shown.last("load_plan")["digest"] == "uniform2"
    chart.press("ArrowLeft")
    chart.press("Enter")
    assert shown.last("load_plan")["digest"] == "uniform8"


def test_click_on_the_spectrum_selects_the_layer(shown: View) -> None:
    shown.page.mouse.click(*shown.point(f"rungs:{Q1}", 2, "spectrum"))
    assert shown.last("select") == {"type": "select", "layers": [Q1], "mode": "replace"}


def test_chart_follows_its_panel(shown: View) -> None:
    width = "() => root.querySelector('[data-chart=front] .pd-plot')._fullLayout.width"
    before = shown.page.evaluate(width)
    shown.page.set_viewport_size({"width": 640, "height": 900})
    shown.page.wait_for_function(f"(before) => ({width})() !== before", arg=before)
    assert shown.page.evaluate("() => document.documentElement.scrollWidth") <= 640


def test_colours_of_charts_follow_the_theme(shown: View) -> None:
    colour = "() => root.querySelector('[data-chart=front] .pd-plot')._fullData.find((t) => t.uid === 'umeasured').marker.color"
    assert shown.page.evaluate(colour) == "#0a5fb0"
    shown.set("theme", "dark")
    shown.page.wait_for_function(f"() => ({colour})() === '#5aa9ee'")
    assert shown.last("theme") == {"type": "theme", "theme": "dark"}


def test_automatic_theme_follows_the_page(view: View) -> None:
    view.mount(states.minilm(theme="auto"), ground="#111", ink="#eee")
    expect(view.page.locator(".pd-host")).to_have_attribute("data-theme", "dark")
    view.page.evaluate("() => { document.body.style.color = '#111' }")
    expect(view.page.locator(".pd-host")).to_have_attribute("data-theme", "light")


def test_pictures_on_request(shown: View) -> None:
    shown.set("want_png", 1)
    shown.page.wait_for_function("() => model.messages.filter((m) => m.type === 'png').length === 3")
    pictures = {message["name"]: message for message in shown.messages("png")}
    assert {name: picture.get("text") for name, picture in pictures.items()} == {"front": None, "spectrum": None, "explorer": None}
    image = Image.open(BytesIO(base64.b64decode(pictures["explorer"]["data"])))
    assert image.width == pytest.approx(1280 * 1.5, abs=2)
    assert len(image.convert("RGB").getcolors(1 << 24)) > 200
    # the picture's styles are read back from the page: a declaration that a browser serialises as empty would be lost
    lost = "() => [...document.querySelector('style[data-explorer]').sheet.cssRules].map((r) => r.cssText).filter((t) => /:\\s*;/.test(t))"
    assert shown.page.evaluate(lost) == []


def test_a_chart_lower_or_narrower_than_its_margins_waits_for_room(shown: View) -> None:
    """Given to plotly, 300 x 20 px put its texts at infinity, which the console reported: "rotate(-90,Infinity,3)"."""
    chart = shown.page.locator("[data-chart=front]")
    resize = """(node, [width, height]) => Object.assign(node.style, { position: "fixed", width: `${width}px`, height: `${height}px`, minWidth: 0, minHeight: 0, flex: "none" })"""
    for small, enough in (((300, 20), (300, 71)), ((10, 200), (71, 200))):
        chart.evaluate(resize, [600, 300])
        shown.page.wait_for_timeout(300)
        before = int(chart.get_attribute("data-draws") or 0)
        chart.evaluate(resize, list(small))
        shown.page.wait_for_timeout(300)
        assert int(chart.get_attribute("data-draws") or 0) == before
        chart.evaluate(resize, list(enough))
        expect(chart).not_to_have_attribute("data-draws", str(before))
