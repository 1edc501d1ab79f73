"""The user's plan outlives the kernel: small files in the study's folder, written after edits and read when a study is opened.

They hold decisions only, no results; those are in the store. ``explorer.json`` is the plan with its history, locks, budget, the plans
that wait to be measured and those that it is compared with: the last explorer that was edited wins. ``explorer-plans.json`` has the plans that were saved by name: it is
read again before it is written, so that two explorers keep each other's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from paredown.errors import ParedownError
from paredown.specs import Plan, Scheme, from_json, to_json
from paredown_widgets.editor import Step

if TYPE_CHECKING:
    from paredown_widgets.model import ExplorerModel

FILE_NAME = "explorer.json"
PLANS_NAME = "explorer-plans.json"
_SCHEMA = 1
_STEPS = 60  # of the history that are kept
_NAME = 60  # letters of a saved plan's name

Schemes = Mapping[str, Scheme]


def remember(model: ExplorerModel) -> None:
    """Write plan, history, locks, budget and compared plans beside the store, if the user has touched them since the last time."""
    with model.lock:
        info, editor, compared = model.record.info, model.editor, model.comparison.plans(model)
        if info is None or model.offline or not (model.touched or compared or model.remembered):
            return
        limits = {"budget": model.budget, "latency_budget": model.latency_budget, "budget_unit": model.budget_unit}
        now = (
            editor.schemes,
            editor.steps[-1:],
            len(editor.undone),
            model.reference,
            sorted(editor.locked),
            limits,
            list(model.asked),
            model.comparison.added,
        )
        if now == model.remembered:
            return
        model.remembered = now
        content = {
            "schema": _SCHEMA,
            "model_digest": info.digest,
            "touched": model.touched,
            "schemes": _text(editor.schemes),
            "reference": None if model.reference is None else _text(model.reference),
            "locked": sorted(editor.locked),
            **limits,
            "history": list(_diffs(editor.schemes, editor.steps[::-1])),
            "undone": list(_diffs(editor.schemes, editor.undone)),
            "waiting": [json.loads(to_json(plan)) for plan in model.asked.values()],
            "compared": [json.loads(to_json(plan)) for plan in compared],
        }
    try:
        _write(_folder(model) / FILE_NAME, content)
    except OSError:
        return  # a study that can only be read can still be looked at; the plan then lives as long as the kernel


def recall(model: ExplorerModel) -> bool:
    """Take up the plan that was left here; says whether there was one for this model."""
    try:
        content: Any = json.loads((_folder(model) / FILE_NAME).read_text(encoding="utf-8"))
        if content["schema"] != _SCHEMA or model.record.info is None or content["model_digest"] != model.record.info.digest:
            return False
        schemes, reference = _parsed(content["schemes"]), content["reference"] and _parsed(content["reference"])
        locked, budget = set(content["locked"]), content["budget"]
        steps = list(_steps(schemes, content.get("history", [])))[::-1]
        undone = list(_steps(schemes, content.get("undone", [])))
        waiting, compared = ([from_json(Plan, json.dumps(plan)) for plan in content.get(name, [])] for name in ("waiting", "compared"))
        latency, unit = content.get("latency_budget"), content.get("budget_unit", "MB")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ParedownError):
        return False  # no file, or not one of ours: the explorer proposes a plan as for a new study
    if set(schemes) != set(model.editor.schemes):
        return False
    model.comparison.restore(model, compared)
    if not content.get("touched", True):
        return False  # plans were compared, none was edited
    model.editor.start_from(schemes)
    model.editor.restore(steps, undone)
    model.editor.locked = locked & set(schemes)
    model.reference = reference
    model.asked = {plan.digest: plan for plan in waiting if plan.digest not in model.record.measurements}
    for name, value in (("budget", budget), ("latency_budget", latency)):
        if isinstance(value, (int, float)) and value > 0:
            setattr(model, name, value)
    if unit in ("MB", "bits", "ms"):
        model.budget_unit = unit
    model.touched = True
    return True


class SavedPlans:
    """The plans of one study that the user gave names to, as the file has them now."""

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None
        self._plans: dict[str, dict[str, Scheme]] = {}

    def look(self, model: ExplorerModel) -> bool:
        """Read the file if it has changed; says whether it had."""
        try:
            status = (_folder(model) / PLANS_NAME).stat()
            seen = (status.st_mtime_ns, status.st_size)
        except OSError:
            seen = None
        if seen == self._seen:
            return False
        self._seen, self._plans = seen, {}
        try:
            self._plans = _saved(model)
        except ParedownError as error:
            model.fail(error)
        return True

    def plans(self, model: ExplorerModel) -> Mapping[str, Schemes]:
        """Name to plan, those that fit the model's layers, in the order in which they were saved."""
        return {name: schemes for name, schemes in self._plans.items() if set(schemes) <= set(model.editor.schemes)}

    def as_plans(self, model: ExplorerModel) -> dict[str, Plan]:
        """Name to plan with its prediction, each worked out once."""

        def make() -> dict[str, Plan]:
            made = {name: model.make_plan(schemes, f"saved as {name}") for name, schemes in self.plans(model).items()}
            return {name: plan for name, plan in made.items() if plan is not None}

        return model.kept("saved", (self._seen, model.priced), make)


def save_plan(model: ExplorerModel, name: str) -> None:
    """Save the user's plan by a name; one of that name is replaced.

    Raises:
        ParedownError: If the name is empty or too long, there is no plan, or the folder can't be written.
    """
    name = " ".join(name.split())
    if not 0 < len(name) <= _NAME:
        raise ParedownError(f"a saved plan needs a name of 1 to {_NAME} letters, got {len(name)}; type another")
    if not model.editor.schemes:
        raise ParedownError("there is no plan to save yet; run the study first")
    _change(model, lambda plans: {**{other: plan for other, plan in plans.items() if other != name}, name: dict(model.editor.schemes)})


def forget_plan(model: ExplorerModel, name: str) -> None:
    """Remove a saved plan.

    Raises:
        ParedownError: If there is none of that name, or the folder can't be written.
    """
    if name not in _saved(model):
        raise ParedownError(f"there is no saved plan {name!r} any more; open the list again")
    _change(model, lambda plans: {other: plan for other, plan in plans.items() if other != name})


def _change(model: ExplorerModel, change: Any) -> None:
    info, path = model.record.info, _folder(model) / PLANS_NAME
    if model.offline or info is None:
        raise ParedownError("plans are saved in the study's folder; open the study itself with `paredown app`")
    try:
        with FileLock(path.with_suffix(".lock"), timeout=5):
            plans = change(_saved(model))
            _write(path, {"schema": _SCHEMA, "model_digest": info.digest, "plans": {name: _text(plan) for name, plan in plans.items()}})
    except OSError as error:  # a lock that is held too long among them
        raise ParedownError(f"{path} can't be written: {error}; make the study's folder writable") from error
    model.saved.look(model)
    model.changed()


def _saved(model: ExplorerModel) -> dict[str, dict[str, Scheme]]:
    """What the file holds.

    Raises:
        ParedownError: If there is one that can't be read: writing over it would lose somebody's plans.
    """
    path = _folder(model) / PLANS_NAME
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != _SCHEMA or model.record.info is None or content["model_digest"] != model.record.info.digest:
            raise ParedownError("it is of another model, or another version of Paredown")
        return {str(name): _parsed(schemes) for name, schemes in content["plans"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ParedownError) as error:
        raise ParedownError(f"the saved plans in {path} can't be read: {error}; mend the file, or move it away to begin another") from error


def _folder(model: ExplorerModel) -> Path:
    return Path(model.study.store.folder)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """All of it or nothing."""
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    beside.replace(path)


def _text(schemes: Schemes) -> dict[str, str]:
    return {name: str(scheme) for name, scheme in schemes.items()}


def _parsed(schemes: Mapping[str, str]) -> dict[str, Scheme]:
    return {name: Scheme.parse(text) for name, text in schemes.items()}


def _diffs(now: Schemes, steps: Sequence[Step]) -> Iterator[dict[str, Any]]:
    """Steps away from the plan as it is, each by what differs from the one before: a whole plan for each would be megabytes."""
    for step in steps[:_STEPS]:
        changed = {name: str(scheme) for name, scheme in step.schemes.items() if scheme is not now[name] and scheme != now[name]}
        yield {"label": step.label, "changed": changed, "locked": sorted(step.locked), "calls": list(step.calls)}
        now = step.schemes


def _steps(now: Schemes, written: Sequence[Mapping[str, Any]]) -> Iterator[Step]:
    for step in written:
        now = {**now, **_parsed(step["changed"])}
        yield Step(str(step["label"]), now, frozenset(step["locked"]), tuple((str(name), value) for name, value in step["calls"]))
