"""A study that never ends, and what is asked of the process that shows it: the plan in the user's hands, and how much memory is taken.

`StreamingStudy` measures plan after plan. Up to `most` of them are new; then the same ones are measured again, with another outcome, so
that what is known stays of one size while all of it keeps changing. Run as a script it serves itself and answers questions on its input.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import random
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fake_study import RICH, FakeStudy, measurement
from paredown.specs import Scheme
from paredown_widgets import layer
from paredown_widgets.controls import StudyLike
from paredown_widgets.handlers import handle
from paredown_widgets.model import ExplorerModel
from paredown_widgets.run import state_of
from paredown_widgets.schemes import bits_of

LINES = 200


class StreamingStudy(FakeStudy):
    """Bits, sparsity and rank, and what is kept as shipped, timed; `most` plans at the most, one measured every `pause_each` seconds."""

    def __init__(self, folder: str | Path, *, most: int, pause_each: float) -> None:
        super().__init__(folder, schemes=(*RICH, "keep"), timed=True, pause_each=pause_each)
        self.most = most

    def steps(self) -> Iterator[None]:
        if not self.record().sensitivity_complete:
            pause, self.pause_each = self.pause_each, 0.0
            yield from super().steps()
            self.pause_each = pause
        for line in range(LINES):  # of the log, as many as are shown
            self.store.append("stream", "search", "progress", message=f"line {line} of a run that has lasted")
        draw, record = random.Random(0), self.record()
        original = record.baseline.plan_digest if record.baseline else ""
        plans = [plan for digest, plan in record.plans.items() if digest != original and not plan.found_by.startswith("uniform")]
        found, schemes = list(plans), list(map(Scheme.parse, RICH))
        known, turn = set(record.plans), 0
        while True:
            turn += 1
            if len(plans) < self.most:
                layer = draw.choice(self.layers)
                plan = self.plan(
                    {**draw.choice(found).schemes, **dict.fromkeys([layer.name, *layer.fused_with], draw.choice(schemes))}, "searched"
                )
                if plan.digest in known:
                    continue
                known.add(plan.digest)
                self.store.append("stream", "measure", "plan", payload=[plan])
                plans.append(plan)
            else:
                plan = plans[turn % self.most]
            self.store.append("stream", "measure", "measurement", done=turn % 1000, total=1000, payload=[measurement(plan, seed=turn)])
            yield


def made_from_now_on() -> weakref.WeakSet[ExplorerModel]:
    """The explorers of this process. Not found among all objects, where a tuple that another thread is making would break in its hands."""
    made, begin = weakref.WeakSet(), ExplorerModel.__init__

    def remembered(self: ExplorerModel, study: StudyLike, *, offline: bool = False) -> None:
        begin(self, study, offline=offline)
        made.add(self)

    ExplorerModel.__init__ = remembered
    return made


def seen(model: ExplorerModel) -> dict[str, Any]:
    """What Python holds, in words and numbers."""
    with model.lock:
        editor, record = model.editor, model.record
        layers = {
            name: {
                "bits": bits_of(scheme),
                "scheme": str(scheme),
                "sparsity": "" if scheme.sparsity is None else scheme.sparsity.pattern,
                "locked": name in editor.locked,
                "group": list(editor.groups[name]),
            }
            for name, scheme in editor.schemes.items()
        }
        return {
            "layers": layers,
            "selection": list(model.selection),
            "place": len(editor.steps),
            "undone": len(editor.undone),
            "digest": model.plan.digest if model.plan else "",
            "measured": model.measurement() is not None,
            "plans": len(record.measurements),
            "events": record.sequence,
            "status": model.status,
            "error": (model.error or {}).get("text", ""),
            "budget": model.budget if model.budget_unit != "ms" else 1e3 * (model.latency_budget or 0),
            "unit": model.budget_unit,
            "filter": model.filter,
            "found": None if not model.filter else len(model.found(model.filter) or ()),
            "color_by": model.color_by,
            "order": model.order,
            "x": model.x,
            "y": model.y,
            "sensitivity": model.sensitivity,
            "spectrum": model.spectrum_mode,
            "state": state_of(model),
            "opened": layer.opened(model),
            "added": list(model.comparison.added),
            "kind": model.comparison.kind,
            "saved": sorted(model.saved.plans(model)),
            "priority": record.priority is not None,
            "copied": model.clipboard["n"],
        }


def memory() -> dict[str, int]:
    """What this process takes, after a collection: resident bytes without what is free, and the blocks that Python's allocator has given out."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory stays with the process otherwise, in pieces
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"resident": 4096 * pages, "blocks": sys.getallocatedblocks()}


def main(folder: str, port: int, most: int, pause_each: float) -> None:
    from paredown_widgets import serve

    study, models = StreamingStudy(folder, most=most, pause_each=pause_each), made_from_now_on()

    def answer() -> None:
        known: dict[str, Any] = {"study": study, "models": models, "seen": seen, "memory": memory, "handle": handle}
        for line in sys.stdin:
            try:
                said = {"value": eval(line, known)}  # a question of the test that started this process
            except Exception as error:
                said = {"error": repr(error)}
            sys.stdout.write("answer " + json.dumps(said) + "\n")
            sys.stdout.flush()

    threading.Thread(target=answer, daemon=True).start()
    study.start()
    serve(study, port=port)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
