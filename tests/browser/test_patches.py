"""What changed travels alone: after any of it the screen shows what the whole state would show, and who missed a push asks for the whole."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from browser import state as states
from browser.harness import View
from paredown_widgets.difference import difference

pytestmark = pytest.mark.browser
LAYERS = [states.name(block, role) for block in range(6) for role in ("q", "k", "fc1")]


class Sender:
    """Plays Python: holds what the browser should, and numbers what it sends."""

    def __init__(self, view: View, state: dict[str, Any]) -> None:
        self.view, self.state, self.seq = view, state, 4

    def patch(self, **traits: Any) -> dict[str, Any]:
        """What makes those traits of those of before."""
        changes = {name: difference(self.state[name], value) for name, value in traits.items()}
        self.state |= traits
        self.seq += 1
        return json.loads(json.dumps({"seq": self.seq, "after": self.seq - 1, "traits": changes}))

    def edited(self, draw: random.Random) -> dict[str, Any]:
        """A patch of some cells, the selection and a row of this plan's table."""
        plan, summary = copy.deepcopy(self.state["plan"]), copy.deepcopy(self.state["summary"])
        for layer in draw.sample(LAYERS, draw.randint(1, 6)):
            plan["cells"][layer] |= {"text": str(draw.randint(2, 8)), "edited": draw.random() < 0.5}
        plan["selection"] = draw.sample(LAYERS, draw.randint(0, 4))
        summary["rows"][draw.randrange(len(summary["rows"]))]["predicted"] = f"{draw.random():.3f}"
        return self.patch(plan=plan, summary=summary)

    def send(self, patch: dict[str, Any]) -> None:
        text = json.dumps(patch)
        self.view.set("patch", text if self.view.page.evaluate("() => !model.send") else patch)
        self.view.set("seq", patch["seq"])

    def shown(self) -> bool:
        cells = self.view.page.evaluate(
            '(layers) => layers.map((layer) => root.querySelector(`.pd-cell[data-layer="${layer}"] .v`).textContent)', LAYERS
        )
        predicted = self.view.page.evaluate("() => [...root.querySelectorAll('.pd-tbl .pred')].map((cell) => cell.textContent)")
        return cells == [self.state["plan"]["cells"][layer]["text"] for layer in LAYERS] and predicted == [
            row["predicted"] for row in self.state["summary"]["rows"]
        ]


@pytest.fixture(params=[False, True], ids=["jupyter", "panel"])
def sender(request: pytest.FixtureRequest, view: View) -> Sender:
    state = states.minilm(seq=4, held=4)
    view.mount(copy.deepcopy(state), shadow=request.param)
    return Sender(view, state)


def test_patches_add_up_to_the_whole(sender: Sender) -> None:
    draw = random.Random(1)
    for _ in range(20):
        sender.send(sender.edited(draw))
        assert sender.shown()
    assert sender.view.messages("whole") == []


def test_who_missed_a_push_asks_once_and_takes_the_whole(sender: Sender) -> None:
    draw = random.Random(2)
    late, *later = [sender.edited(draw) for _ in range(3)]
    for patch in later:
        sender.send(patch)
    assert len(sender.view.messages("whole")) == 1
    whole = {name: [sender.state[name]] for name in ("plan", "summary")}
    sender.send({"seq": sender.seq, "after": None, "traits": whole})
    assert sender.shown()
    sender.send({**late, "seq": late["seq"]})  # overtaken on its way
    assert sender.shown()
    sender.send(sender.edited(draw))
    assert sender.shown()
    assert len(sender.view.messages("whole")) == 1
