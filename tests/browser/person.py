"""Somebody in front of one explorer, who sees the screen and may ask Python: what is done must show in both, in time, and the two agree."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Locator, Page

WITHIN = 10.0
"""Seconds in which a gesture must have had its effect, on a machine that may be busy with other things."""
PLAIN = re.compile(r"int([2348])g64")
BITS = (2, 3, 4, 8)
TABS = ("overview", "layer", "compare", "search", "log")
PHRASES = ("block 1-3", "q k v of blocks 2-4", "fc*", "bits < 4", "locked or edited", "not kept bits >= 4", "largest 5")

State = Mapping[str, Any]

SCREEN = """(pd) => {
  const all = (where) => [...pd.querySelectorAll(where)], shown = (node) => Boolean(node?.checkVisibility());
  const layers = {};
  for (const cell of all('.pd-board .pd-cell[data-layer]')) layers[cell.dataset.layer] = {
    bits: cell.querySelector('.v').textContent, sparsity: cell.querySelector('.sparsity').textContent, locked: !cell.querySelector('svg.lock').hasAttribute('hidden'),
    selected: (cell.getAttribute('aria-selected') ?? cell.getAttribute('aria-pressed')) === 'true', dim: cell.classList.contains('dim') };
  const chosen = (label) => all(`[role=radiogroup][aria-label="${label}"] [aria-checked=true]`)[0]?.dataset.option ?? '';
  const thumb = pd.querySelector('.pd-budget .thumb'), measured = all('.pd-card tbody tr td:last-child span');
  return { layers, tab: all('.pd-tabs [aria-selected=true]')[0].dataset.view, panel: all('[role=tabpanel]').filter(shown).map((node) => node.getAttribute('aria-label').toLowerCase()).join(),
    budget: Number(thumb.getAttribute('aria-valuenow')), unit: pd.querySelector('.pd-budget select').value, filter: pd.querySelector('input.filter').value, color_by: pd.querySelector('[aria-label="Colour by"]').value,
    x: chosen('Horizontal axis'), y: chosen('Vertical axis'), order: chosen('Order'), spectrum: chosen('Layers shown'), kind: chosen('Which answers'),
    run: all('.pd-run .ctl button').filter(shown).map((node) => node.getAttribute('aria-label')), error: shown(pd.querySelector('.pd-banner')), letters: all('.pd-metrics thead .pd-letter').map((node) => node.textContent).join(''),
    region: shown(pd.querySelector('.pd-legend .chip')), menus: all('.pd-menu:not([hidden]), .pd-plans:not([hidden]), .pd-sheet').length, measured: measured.some((node) => node.className === 'meas'),
    saved: all('[data-forget]').map((node) => node.dataset.forget).sort(), page: pd.querySelector('.pd-layerhead').dataset.layer ?? '', shape: chosen('Plan as'), sensitivity: pd.querySelector('.pd-sens select')?.value ?? '',
    lit: all('.pd-overview .hover[data-layer]').filter(shown).map((node) => node.dataset.layer), undo: !pd.querySelector('[aria-label=Undo]').disabled, draws: Number(pd.querySelector('[data-chart=front]').dataset.draws ?? 0), theme: pd.closest('.pd-host').dataset.theme };
}"""


class LostError(Exception):
    """A gesture had no effect in time."""


@dataclass
class Person:
    """Somebody in front of one explorer.

    Attributes:
        page: The page it is on.
        ask: Evaluates an expression where Python's model is.
        draw: What is chosen at random.
        took: Seconds from each gesture to its effect, by its name.
    """

    page: Page
    ask: Callable[[str], Any]
    draw: random.Random
    took: dict[str, list[float]] = field(default_factory=dict)
    started: float = 0.0

    @property
    def pd(self) -> Locator:
        return self.page.locator(".pd")

    def python(self) -> State:
        return self.ask("seen(model)")

    def screen(self) -> State:
        return self.pd.evaluate(SCREEN)

    def now(self) -> None:
        """The gesture is made now; what came before was aiming."""
        self.started = time.monotonic()

    def until(self, effect: Callable[[State, State], bool]) -> tuple[State, State]:
        """Wait for an effect; Python and screen then say the same."""
        deadline = time.monotonic() + WITHIN
        while True:
            python, screen = self.python(), self.screen()
            if effect(python, screen) and not (apart := differences(python, screen)):
                return python, screen
            if time.monotonic() > deadline:
                apart = differences(python, screen)
                said = {key: value for key, value in {**python, "screen": {**screen, "layers": ""}}.items() if key != "layers"}
                raise LostError(f"no effect within {WITHIN:.0f} s; apart: {apart}; {said}")
            time.sleep(0.02)

    def tab(self, name: str) -> None:
        if self.screen()["tab"] != name:
            self.pd.get_by_role("tab", name=name.capitalize()).click()
            self.until(lambda _, screen: screen["tab"] == name and screen["panel"] == name)

    def cell(self, layer: str) -> Locator:
        return self.pd.locator(f'.pd-board .pd-cell[data-layer="{layer}"]')

    def free(self) -> str | None:
        """A layer that is neither locked nor anything but an integer of 2, 3, 4 or 8 bits."""
        layers = self.python()["layers"]
        plain = [name for name, layer in layers.items() if not layer["locked"] and PLAIN.fullmatch(layer["scheme"]) and "layer." in name]
        return self.draw.choice(plain) if plain else None

    def grid(self) -> None:
        self.tab("overview")
        if self.screen()["shape"] != "grid":
            self.pd.get_by_role("radio", name="Grid").click()
            self.until(lambda _, screen: screen["shape"] == "grid")

    def picked(self) -> str | None:
        """Such a layer, selected by a click."""
        self.grid()
        layer = self.free()
        if layer is not None:
            group = self.python()["layers"][layer]["group"]
            self.cell(layer).click()
            self.until(lambda python, _: sorted(python["selection"]) == sorted(group))
        return layer


def differences(python: State, screen: State) -> list[str]:
    """Where Python and the screen say something else."""
    found = [
        f"{key} {python[key]!r} on screen {screen[key]!r}"
        for key in ("filter", "color_by", "unit", "order", "y", "spectrum")
        if screen[key] not in (python[key], "")
    ]
    for name, layer in python["layers"].items():
        cell, selected = screen["layers"][name], name in python["selection"]
        if layer["bits"] is not None and str(layer["bits"]) != cell["bits"]:
            found.append(f"{name} has {layer['bits']} bits, on screen {cell['bits']}")
        if (layer["sparsity"], layer["locked"], selected) != (cell["sparsity"], cell["locked"], cell["selected"]):
            found.append(f"{name}: {layer}, selected {selected}, on screen {cell}")
    if bool(python["error"]) != screen["error"]:
        found.append(f"error {python['error']!r} on screen {screen['error']}")
    if screen["undo"] != (python["place"] > 0):
        found.append(f"undo on screen {screen['undo']}, place {python['place']}")
    return found[:4]
