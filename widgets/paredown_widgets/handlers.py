"""Messages of the browser to commands of the model. An error of any of them is shown in the explorer, never lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from paredown.errors import ParedownError
from paredown.specs import CurvatureRequest, Scheme, Sparsity
from paredown_widgets import curvature, layer, presets, sensitivities
from paredown_widgets.background import in_background
from paredown_widgets.choices import HANDLES, Handle, Value
from paredown_widgets.compare_messages import COMPARISONS, add
from paredown_widgets.decisions import DECISIONS
from paredown_widgets.exports import export_plan
from paredown_widgets.model import COLORS, ExplorerModel

Message = Mapping[str, Any]
_OFFLINE = {
    "run",
    "pause",
    "resume",
    "cancel",
    "measure",
    "estimate",
    "export",
    "queue_first",
    "queue_remove",
    "prioritise",
    "save_plan",
    "forget_plan",
}


def handle(model: ExplorerModel, message: Message) -> None:
    """Do what a message asks; `ack` belongs to the view and is not handled here."""
    try:
        kind = message.get("type")
        handler = HANDLERS.get(kind) if isinstance(kind, str) else None
        if handler is None:
            raise ParedownError(f"the explorer does not know the message {kind!r}; reload the page, its script may be of another version")
        if model.offline and kind in _OFFLINE:
            raise ParedownError("this is a saved report; open the study itself with `paredown app` to run, measure or export")
        with model.lock:
            handler(model, message)
    except Exception as error:
        model.fail(error)


def _layers(model: ExplorerModel, message: Message) -> list[str]:
    names = message["layers"]
    unknown = [name for name in names if name not in model.editor.schemes]
    if unknown:
        raise ParedownError(f"this study has no layer {unknown[0]!r}; reload the page")
    return list(names)


def _named(model: ExplorerModel, names: Sequence[str]) -> str:
    return model.labels[names[0]].text if len(names) == 1 else f"{len(names)} layers"


def _run(model: ExplorerModel, message: Message) -> None:
    in_background(model, model.study.start)


def _resume(model: ExplorerModel, message: Message) -> None:
    in_background(model, model.study.resume if model.study.paused else model.study.start)


def _pause(model: ExplorerModel, message: Message) -> None:
    model.study.pause()


def _cancel(model: ExplorerModel, message: Message) -> None:
    model.study.cancel()


def _select(model: ExplorerModel, message: Message) -> None:
    picked = _layers(model, message)
    names = model.editor.widened(picked)
    mode = message.get("mode", "replace")
    now = list(model.selection)
    if mode == "toggle":
        now = [name for name in now if name not in names] if set(names) <= set(now) else [*now, *(n for n in names if n not in now)]
    elif mode == "extend":
        now += [name for name in names if name not in now]
    else:
        now = list(names)
    model.selection = now
    if len(picked) == 1 and (mode == "replace" or model.opened not in now):
        model.opened = picked[0]  # what is picked besides stands beside it
    model.changed()


def _scheme(model: ExplorerModel, message: Message) -> None:
    scheme = Scheme.parse(str(message["scheme"]))
    if scheme not in model.choices.schemes:
        raise ParedownError(f"this study has no scheme {scheme}; expected one of {', '.join(map(str, model.choices.schemes))}")
    names = _layers(model, message)
    model.edit(names, lambda *_: scheme, f"{_named(model, names)} to {scheme}")


def _set(handle: Handle, read: Callable[[Any], Value]) -> Callable[[ExplorerModel, Message], None]:
    def move(model: ExplorerModel, message: Message) -> None:
        value, names = message[handle], _layers(model, message)
        value = None if value is None else read(value)
        model.move(names, handle, value, _moved(model, names, handle, value))

    return move


def _moved(model: ExplorerModel, names: Sequence[str], handle: Handle, value: Value) -> str:
    """What undo calls it."""
    word = {"bits": f"{value} bit", "sparsity": str(value), "rank": f"rank {value}"}[handle]
    return f"{_named(model, names)} to {word if value is not None else {'bits': 'kept', 'sparsity': 'dense', 'rank': 'no rank'}[handle]}"


def _step(model: ExplorerModel, message: Message) -> None:
    by, names, handle = int(message["by"]), _layers(model, message), _handle(message.get("handle", "bits"))
    gesture = message.get("gesture")

    def change(name: str, now: Scheme) -> Scheme:
        return model.choices_of(name).stepped(now, handle, by)

    model.edit(names, change, f"{handle} of {_named(model, names)}", gesture=None if gesture is None else str(gesture))


def _cycle(model: ExplorerModel, message: Message) -> None:
    """All to what follows where the last of them stands."""
    names, handle = _layers(model, message), _handle(message["handle"])
    free = [name for name in names if name not in model.editor.locked]
    if free:
        value = model.choices_of(free[-1]).after(model.editor.schemes[free[-1]], handle)
        model.move(free, handle, value, _moved(model, free, handle, value))


def _handle(word: object) -> Handle:
    for handle in HANDLES:
        if handle == word:
            return handle
    raise ParedownError(f"handle must be one of {', '.join(HANDLES)}, got {word!r}")


def _lock(model: ExplorerModel, message: Message) -> None:
    model.editor.lock(_layers(model, message), bool(message["locked"]))
    model.touch()


def _reset(model: ExplorerModel, message: Message) -> None:
    reference = model.reference
    if reference is None:
        raise ParedownError("this plan was not measured yet, so there is nothing to go back to; use undo")
    names = model.editor.widened(_layers(model, message))
    after = {**model.editor.schemes, **{name: reference[name] for name in names}}
    model.editor.replace(after, f"reset {_named(model, names)}")
    model.touch()


def _estimate(model: ExplorerModel, message: Message) -> None:
    request = hessian_request(model, model.selection)
    model.hessian_asked = True
    in_background(model, lambda: ask_hessian(model, request))
    model.changed()


def hessian_request(model: ExplorerModel, layers: Sequence[str]) -> CurvatureRequest:
    """What to ask for; where all of it is known, half of the worst error of today."""
    known = [model.record.estimates(name, "hessian").trace for name in layers]
    worst = max((max(trace.relative_data_error, trace.relative_probe_error or 0.0) for trace in known if trace), default=0.0)
    default = CurvatureRequest(tuple(layers))
    return (
        CurvatureRequest(tuple(layers), relative_error=min(default.relative_error, worst / 2))
        if known and all(known) and worst
        else default
    )


def ask_hessian(model: ExplorerModel, request: CurvatureRequest) -> None:
    """Have the Hessian estimated; it is queued when this returns."""
    model.hessian_asked = True
    try:
        model.study.estimate(request)
    except BaseException:
        model.hessian_asked = False
        raise


def _load_plan(model: ExplorerModel, message: Message) -> None:
    digest = str(message["digest"])
    if digest not in model.record.plans:
        raise ParedownError(f"this study has no plan {digest}; reload the page")
    if message.get("shift"):
        add(model, digest)
        return
    presets.load(model, digest)


def _sensitivity(model: ExplorerModel, message: Message) -> None:
    known = [choice.id for choice in sensitivities.choices(model)]
    if message["id"] not in known:
        raise ParedownError(
            f"sensitivity must be one of {', '.join(known)}, got {message['id']!r}; what a study has not estimated can't be shown"
        )
    model.sensitivity = str(message["id"])
    model.changed()


def _filter(model: ExplorerModel, message: Message) -> None:
    model.filter = str(message["text"])
    model.changed()


def _opened(model: ExplorerModel, message: Message) -> None:
    """A view that needs something worked out that no other does."""
    if message["id"] == "layer":
        model.paging = True
        name = str(message.get("layer") or layer.opened(model))
        if name in model.editor.schemes:
            model.opened = name
            model.selection = model.selection or list(model.editor.widened([name]))
        model.changed()
        return
    if message["id"] == "compare":
        model.comparison.opened = True
        model.comparison.hurry(model)
        model.changed()
        return
    model.searching = True
    if model.problem is not None and not model.offline:
        in_background(model, model.rank)


def _choice(name: str, field: str, words: Sequence[str]) -> Callable[[ExplorerModel, Message], None]:
    def choose(model: ExplorerModel, message: Message) -> None:
        value = message[field]
        if value not in words:
            raise ParedownError(f"{name} must be one of {', '.join(words)}, got {value!r}")
        setattr(model, name, value)
        model.changed()

    return choose


def _export(model: ExplorerModel, message: Message) -> None:
    export_plan(model, str(message["target"]))


def _dismiss_error(model: ExplorerModel, message: Message) -> None:
    model.error = None
    model.changed()


def _ignore(model: ExplorerModel, message: Message) -> None:
    return


HANDLERS: dict[str, Callable[[ExplorerModel, Message], None]] = {
    **COMPARISONS,
    **DECISIONS,
    "run": _run,
    "pause": _pause,
    "resume": _resume,
    "cancel": _cancel,
    "select": _select,
    "scheme": _scheme,
    "bits": _set("bits", int),
    "sparsity": _set("sparsity", lambda text: Sparsity(str(text))),
    "rank": _set("rank", int),
    "step": _step,
    "cycle": _cycle,
    "lock": _lock,
    "reset": _reset,
    "estimate": _estimate,
    "load_plan": _load_plan,
    "sensitivity": _sensitivity,
    "filter": _filter,
    "color_by": _choice("color_by", "id", tuple(COLORS)),
    "order": _choice("order", "id", ("model", "largest")),
    "x": _choice("x", "id", ("bytes", "seconds")),
    "y": _choice("y", "id", ("kl", "metric", "loss")),
    "spectrum_mode": _choice("spectrum_mode", "id", ("selected", "all", "table")),
    "spectrum_matrix": _choice("spectrum_matrix", "id", ("auto", *curvature.MATRICES)),
    "theme": _ignore,  # what the page around looks like: the browser's own business
    "export": _export,
    "dismiss_error": _dismiss_error,
    "opened": _opened,
    "png": _ignore,
}
"""Message type to handler; a table test walks through it."""
