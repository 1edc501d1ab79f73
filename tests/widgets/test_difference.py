"""What changed travels in place of the whole, and comes to the same."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from paredown_widgets.difference import difference
from paredown_widgets.model import ExplorerModel
from paredown_widgets.pump import Pump
from reference.patched import patched

_WORDS = st.text("abc", max_size=2)
_VALUES = st.recursive(
    st.none() | st.integers(2, 5) | _WORDS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(_WORDS, inner, max_size=5),
    max_leaves=20,
)


@given(_VALUES, _VALUES)
def test_a_value_with_what_changed_is_the_new_value_in_its_order(old: Any, new: Any) -> None:
    change = difference(old, new)
    assert json.dumps(patched(old, json.loads(json.dumps(change))) if change else old) == json.dumps(new)


@given(_VALUES)
def test_nothing_travels_where_nothing_changed(value: Any) -> None:
    assert difference(value, json.loads(json.dumps(value))) is None


def test_one_row_of_many_travels_alone() -> None:
    rows = [{"name": f"layer {i}", "bits": 4, "marks": [i, i + 1]} for i in range(500)]
    after = [*rows[:7], {**rows[7], "bits": 3}, *rows[8:]]
    assert difference(rows, after) == {7: {"bits": [3]}}


def test_after_random_edits_the_patches_add_up_to_the_whole_state(model: ExplorerModel) -> None:
    draw, names = random.Random(3), [layer.name for layer in model.record.layers]
    pushed: list[dict[str, Any]] = []
    pump = Pump(model, lambda traits: pushed.append(json.loads(json.dumps(traits))))
    shown = json.loads(json.dumps(pump.first))
    pump.receive({"type": "ack", "seq": 0})
    digests = list(model.measured_plans())
    for _ in range(60):
        layers = draw.sample(names, draw.randint(1, 5))
        message = draw.choice(
            [
                {"type": "bits", "layers": layers, "bits": draw.choice([2, 3, 4, 8])},
                {"type": "step", "layers": layers, "handle": "bits", "by": draw.choice([-1, 1])},
                {"type": "select", "layers": layers, "mode": draw.choice(["replace", "toggle", "extend"])},
                {"type": "lock", "layers": layers, "locked": draw.random() < 0.3},
                {"type": "load_plan", "digest": draw.choice(digests)},
                {"type": "color_by", "id": draw.choice(["bits", "sensitivity", "trace"])},
                {"type": "order", "id": draw.choice(["model", "largest"])},
                {"type": "filter", "text": draw.choice(["", "q", "bits < 4", "block 1"])},
                {"type": "y", "id": draw.choice(["kl", "metric"])},
                {"type": "undo"},
            ]
        )
        pump.receive(message)
        assert model.error is None, model.error
        for push in pushed:
            patch = push.pop("patch", None)
            assert patch is not None
            assert patch["after"] == shown["held"]
            assert not set(push) - {"seq"}
            shown |= {name: patched(shown[name], change) for name, change in patch["traits"].items()} | {"held": patch["seq"]} | push
        pushed.clear()
        pump.receive({"type": "ack", "seq": shown["seq"]})
        assert json.dumps(shown) == json.dumps(pump.first | {"seq": shown["seq"]})
    pump.receive({"type": "whole"})
    (answer,) = pushed
    assert answer["patch"]["after"] is None
    assert {name: change[0] for name, change in answer["patch"]["traits"].items()} == {
        name: value for name, value in shown.items() if name not in ("seq", "held")
    }
    pump.close()
