"""axe-core finds no violation of WCAG 2.2, level A or AA, on any screen, light and dark."""

from __future__ import annotations

import json

import pytest
from axe_playwright_python.base import AXE_SCRIPT

from browser.harness import View
from browser.shoot import SHOTS, ready

pytestmark = pytest.mark.browser
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
SCREENS = (
    "light_1280", "dark_1280", "deep_1280", "idle_1280", "failed_dark_900", "rich_dark_620", "refined_dark_1280", "search_light_1280", "compare_dark_620",
    "compare_pictures_1280", "compare_sounds_dark_1280", "layer_light_1280", "layer_dark_620", "coloured_deep_dark_1280", "spec_table_1280",
)  # fmt: skip


def violations(view: View) -> list[str]:
    """What axe-core finds within the explorer: rule, element and why."""
    if not view.page.evaluate("() => 'axe' in window"):
        view.page.evaluate(AXE_SCRIPT)
    options = {"runOnly": TAGS, "resultTypes": ["violations"]}
    found = view.page.evaluate("(options) => axe.run('.pd', options)", options)
    assert found["testEngine"]["name"] == "axe-core"
    return [
        f"{rule['id']}: {node['html'][:160]} {json.dumps(node['any'] and node['any'][0]['message'])}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_has_no_violation(view: View, name: str) -> None:
    width, build, page = SHOTS[name]
    view.page.set_viewport_size({"width": width, "height": 900})
    state = build()
    view.mount(state, **page)
    ready(view, state)
    assert violations(view) == []


def test_axe_sees_what_is_wrong(shown: View) -> None:
    shown.page.evaluate("() => { const plain = document.createElement('button'); root.querySelector('.pd').append(plain); }")
    assert any(found.startswith("button-name") for found in violations(shown))
