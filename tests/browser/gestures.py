"""What a person does, at random: every gesture with its weight. One without its effect in time is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

from browser import gestures_plan as plan
from browser import gestures_view as view
from browser.person import Person

OFTEN = (
    plan.click_cell,
    plan.toggle_cell,
    plan.digit,
    plan.drag,
    view.click_point,
    plan.stepper,
    plan.undo_redo,
    view.go_to_tab,
    plan.lock,
)
SOMETIMES = (
    plan.click_label, plan.walk, plan.phrase, plan.hover, plan.scheme, plan.cycle, plan.table, plan.preset, plan.history, plan.fill, view.budget_keys, view.budget_drag, view.budget_typed, view.tab_keys, view.colour, view.vertical, view.horizontal, view.order,
    view.spectrum, view.sensitivity, view.shift_click, view.chart_keys, view.brush, view.export_menu, view.chart_table, view.copy_python, view.pause_resume, view.add_plan, view.remove_plan, view.flips, view.open_layer, view.walk_layers, view.layer_scheme,
)  # fmt: skip
RARELY = (plan.save_forget, plan.measure, view.cancel_resume, view.resize, view.turn_dark)
GESTURES: dict[Callable[[Person], None], int] = {**dict.fromkeys(OFTEN, 6), **dict.fromkeys(SOMETIMES, 3), **dict.fromkeys(RARELY, 1)}
"""Each with its weight."""


def one_gesture(one: Person, gesture: Callable[[Person], None]) -> str | None:
    """Make it; None, or what went wrong."""
    one.now()
    try:
        gesture(one)
    except Exception as error:  # whatever it was: the person got nowhere
        return f"{type(error).__name__}: {error}"
    one.took.setdefault(gesture.__name__, []).append(time.monotonic() - one.started)
    return None
