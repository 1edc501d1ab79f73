"""One layer's page: what it is, why it is sensitive, what each scheme would cost it, and what its weights and inputs look like."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping
from typing import Any

from paredown.loadable import obstacle
from paredown.specs import KEEP, MEASURED, Candidate, LayerRef, Scheme
from paredown_widgets import curvature, numbers
from paredown_widgets.figures import layer as figures
from paredown_widgets.figures import spectrum
from paredown_widgets.model import ExplorerModel
from paredown_widgets.schemes import describe, describe_all
from paredown_widgets.why import Evidence, why

Json = dict[str, Any]
_OLD = "This study was made before histograms were kept. A new study of this model has them: they come with the sensitivities."
_WAITING = "The histogram appears here once the layer has been priced."
LOADS, OURS = "loads", "Paredown alone"


def opened(model: ExplorerModel) -> str:
    """The layer whose page is shown: the one that was picked last, else the selection's last, else the one that costs most; "" before there are any."""
    chosen = [name for name in model.selection if name in model.labels]
    if chosen:
        return model.opened if model.opened in chosen else chosen[-1]
    return max(model.labels, key=lambda name: _loss(model, name, model.choices.middle) or 0.0, default="")


def shown(model: ExplorerModel) -> list[str]:
    """The opened layer, and at most two more of the selection beside it."""
    first = opened(model)
    others = [name for name in model.selection if name in model.labels and name != first]
    return [first, *others[-(len(spectrum.SERIES) - 1) :]] if first else []


def view(model: ExplorerModel) -> Json:
    """State of the `layer` trait; empty until somebody has opened the page."""
    name = opened(model) if model.paging else ""
    if not name:
        return {"layer": "", "empty": "A layer's page is here once the model is loaded."}
    reference = next(layer for layer in model.record.layers if layer.name == name)
    found = why(evidence(model, name))
    return {
        "layer": name,
        "label": model.labels[name].text,
        "beside": [model.labels[other].text for other in shown(model)[1:]],
        "chips": [f"{reference.shape[0]:,} × {reference.shape[1]:,}", f"{reference.parameters:,} weights", *_chips(model, reference)],
        "locked": name in model.editor.locked,
        "edited": name in model.edited(),
        "why": {"lead": found.lead, "text": found.text},
        "table": table(model, reference),
        "schemes": _schemes(model, name),
        "weights": _weights(model),
        "inputs": _inputs(model),
        "empty": "",
    }


def key(model: ExplorerModel) -> tuple[Any, ...]:
    """What the view depends on."""
    name = opened(model) if model.paging else ""
    editor = model.editor
    return (
        name, tuple(model.selection), model.curvature_events, sum(map(len, model.record.candidates.values())), model.priced, tuple(model.labels),
        editor.schemes.get(name), name in editor.locked, name in model.edited(), model.running,
    )  # fmt: skip


def spectra(model: ExplorerModel) -> Json:
    """State of the `layer_spectrum` trait: as the spectrum of the overview, of the opened layer and those beside it."""
    return spectrum.view(model, shown(model)) if model.paging else {"figure": {"data": [], "layout": {}}, "empty": _WAITING, "matrices": []}


def spectra_key(model: ExplorerModel) -> tuple[Any, ...]:
    """What that depends on."""
    return (model.paging and tuple(shown(model)), *spectrum.key(model))


# -- why


def evidence(model: ExplorerModel, name: str) -> Evidence:
    """What is known of a layer beside the median layer, compared at the study's middle scheme."""
    scheme = model.choices.middle
    profile, candidate = model.record.profiles.get(name), model.record.candidates.get(name, {}).get(scheme)
    known = model.record.estimates(name)
    measured = bool(candidate and MEASURED in candidate.scores)
    seen = profile.inputs if profile else None
    return Evidence(
        at=describe(scheme).split(", ")[0],
        loss=_ratio(model, name, lambda other: _loss(model, other, scheme)),
        outlier_channels=len(seen.outlier_channels) if seen else None,
        channels=seen.channels if seen else 0,
        outlier_share=seen.outlier_share if seen else 0.0,
        trace=_ratio(model, name, lambda other: trace.value if (trace := model.record.estimates(other).trace) else None),
        trace_words=curvature.trace_value(known.trace) if known.trace else "",
        top=_ratio(model, name, lambda other: curvature.top(model.record.estimates(other))),
        matrix=curvature.MATRICES[model.record.sensitivity_matrix],
        top_words=numbers.quantity(curvature.top(known)),
        passed_on=_ratio(model, name, lambda other: _passed_on(model, other, scheme, measured=measured)),
        passed_on_measured=measured,
        reach=profile.weight_max / profile.weight_sd if profile and profile.weight_sd > 0 else None,
        kurtosis=profile.weight_kurtosis if profile else None,
    )


def _ratio(model: ExplorerModel, name: str, value: Callable[[str], float | None]) -> float | None:
    """A layer's value over the median of all layers that have one; None where it has none, or the median is not positive."""
    own = value(name)
    middle = statistics.median([found for other in model.labels if (found := value(other)) is not None] or [0.0])
    return None if own is None or middle <= 0 else own / middle


def _loss(model: ExplorerModel, name: str, scheme: Scheme) -> float | None:
    candidate = model.record.candidates.get(name, {}).get(scheme)
    return candidate.loss_increase if candidate and scheme != KEEP else None


def _passed_on(model: ExplorerModel, name: str, scheme: Scheme, *, measured: bool) -> float | None:
    """Loss for each unit of relative output error, nats."""
    candidate = model.record.candidates.get(name, {}).get(scheme)
    if candidate is None or candidate.output_error <= 0:
        return None
    loss = candidate.scores.get(MEASURED) if measured else candidate.loss_increase
    return None if loss is None else max(loss, 0.0) / candidate.output_error


# -- what it is, and what it may get


def _chips(model: ExplorerModel, layer: LayerRef) -> list[str]:
    mates = [model.labels[name].column for name in model.editor.groups.get(layer.name, ()) if name != layer.name]
    return [*([f"decided with {', '.join(mates)}"] if mates else []), *([f"tied to {', '.join(layer.tied_to)}"] if layer.tied_to else [])]


def table(model: ExplorerModel, layer: LayerRef) -> Json:
    """The schemes that were priced for a layer, the largest first; a row that its fused group can't have is marked so."""
    offered = model.record.candidates.get(layer.name, {})
    order = sorted(offered, key=lambda scheme: (-offered[scheme].bytes, str(scheme)))
    common, names = _short(order)
    measured = any(MEASURED in candidate.scores for candidate in offered.values())
    kl = "KL" if model.record.info is None or model.record.info.loss == "kl" else "Loss"
    allowed = set(model.choices_of(layer.name).schemes)
    return {
        "sub": common,
        "loss": f"{kl}, 10⁻³ nats",
        "alone": "Alone, 10⁻³ nats" if measured else "",
        "rows": [
            {
                "scheme": str(scheme),
                "name": names[scheme],
                "title": "\n".join(filter(None, (numbers.capital(describe(scheme)), offered[scheme].note))),
                "bits": numbers.fixed(8 * offered[scheme].bytes / layer.parameters, 2),
                "size": numbers.significant(offered[scheme].bytes / 1e3),
                "loss": _nats(offered[scheme]),
                "alone": numbers.significant(1e3 * offered[scheme].scores[MEASURED])
                if MEASURED in offered[scheme].scores
                else numbers.NONE,
                "error": f"{numbers.significant(100 * offered[scheme].output_error, 2)}{numbers.SPACE}%",
                "now": scheme == model.editor.schemes[layer.name],
                "refused": "" if scheme in allowed else "not offered to all layers that are decided together",
                **_verdict(model, layer, scheme),
            }
            for scheme in order
        ],
        "empty": "" if offered else "What each scheme would cost appears here once the layer has been priced.",
    }


def _nats(candidate: Candidate) -> str:
    return numbers.with_error(candidate.loss_increase * 1e3, candidate.loss_increase_sd * 1e3)


def _verdict(model: ExplorerModel, layer: LayerRef, scheme: Scheme) -> Json:
    """What a runtime says of a scheme: whether a compressed-tensors checkpoint loads, or else that Paredown's own format does."""
    found = obstacle(layer, scheme)
    if found is not None:
        return {"runtime": found.words, "loads": False, "reason": f"{numbers.capital(found.reason)}. Paredown's own format holds it."}
    if model.record.info is not None and model.record.info.export_format == "paredown":
        return {
            "runtime": OURS,
            "loads": True,
            "reason": "This study exports Paredown's own format, which holds it. Whether transformers loads the model's class was not asked.",
        }
    return {"runtime": LOADS, "loads": True, "reason": "Plain transformers loads it from a compressed-tensors checkpoint"}


def _short(schemes: list[Scheme]) -> tuple[str, Mapping[Scheme, str]]:
    """What all schemes share, and each without it.

    Example:
        >>> _short([Scheme.parse("int3g64"), Scheme.parse("int4g64+2:4")])[0]
        'groups of 64'
    """
    words = {scheme: text.split(", ") for scheme, text in zip(schemes, describe_all(schemes), strict=True)}
    quantized = [set(words[scheme][1:]) for scheme in schemes if scheme.weight is not None]
    shared = set[str]().union(*quantized[:1]).intersection(*quantized)
    in_order = [word for scheme in schemes[:1] + [s for s in schemes if s.weight] for word in words[scheme] if word in shared]
    names = {scheme: ", ".join(_brief(word) for word in each if word not in shared) for scheme, each in words.items()}
    return ", ".join(dict.fromkeys(in_order)), names


def _brief(words: str) -> str:
    """A part of a scheme's words where space is scarce; the row's title has them whole.

    Example:
        >>> _brief("2 of 4 kept"), _brief("EoRA of rank 16 at 8 bit"), _brief("inputs at 8 bit"), _brief("4 bit NormalFloat")
        ('2:4', 'EoRA 16 at 8 bit', 'inputs 8 bit', '4 bit NF')
    """
    words = re.sub(r"(\d+) of (\d+) kept", r"\1:\2", words)
    return words.replace(" of rank ", " ").replace("inputs at ", "inputs ").replace("NormalFloat", "NF")


# -- the charts


def _schemes(model: ExplorerModel, name: str) -> Json:
    found = figures.families(model.record.candidates.get(name, {}))
    figure = figures.schemes_figure(model, name)
    return {
        "figure": figure,
        "legend": _legend([family.label for family in found]),
        "label": f"Predicted loss increase of {model.labels[name].text} by the bits of its codes, {len(found)} kinds of schemes; the table holds the numbers",
        "empty": "" if found else "The curve appears here once the layer has been priced.",
    }


def _legend(labels: list[str]) -> list[str]:
    """The families that have a style of their own, and how many share the last."""
    own = len(figures.STYLES)
    return labels if len(labels) <= own else [*labels[: own - 1], f"{len(labels) - own + 1} others"]


def _weights(model: ExplorerModel) -> Json:
    names = shown(model)
    profile = model.record.profiles.get(names[0])
    if profile is None:
        return {"figure": None, "sub": "", "label": "", "empty": _missing(model, names[0])}
    sub = f"sd {numbers.significant(profile.weight_sd, 2)}, max {numbers.significant(profile.weight_max, 2)}, kurtosis {numbers.fixed(profile.weight_kurtosis, 1)}"
    label = f"Histogram of the weights of {model.labels[names[0]].text}: {sub}"
    title = "sd: standard deviation; max: largest magnitude; kurtosis: excess over a normal distribution, whose is 0"
    return {"figure": figures.weights_figure(model, names), "sub": sub, "title": title, "label": label, "empty": ""}


def _inputs(model: ExplorerModel) -> Json:
    names = shown(model)
    profile = model.record.profiles.get(names[0])
    if profile is None:
        return {"figure": None, "sub": "", "label": "", "empty": _missing(model, names[0])}
    seen = profile.inputs
    if seen is None:
        return {"figure": None, "sub": "", "label": "", "empty": "An embedding looks its rows up: it has no input activations."}
    count = len(seen.outlier_channels)
    share = f"{numbers.significant(100 * seen.outlier_share, 2)}{numbers.SPACE}%"
    sub = f"{count:,} outlier channel{'s' * (count != 1)}, {share} of the energy" if count else "no outlier channels"
    top = ", ".join(f"{channel} ({100 * part:.2g} %)" for channel, part in list(zip(seen.top_channels, seen.top_shares, strict=True))[:5])
    title = (
        f"An outlier channel has a magnitude of 6 median channels ({numbers.significant(seen.median_rms)} each) in 6 % of the {seen.tokens:,} tokens or more"
        f" (after LLM.int8()). Largest magnitude {numbers.significant(seen.largest)}. Channels with the most energy: {top}"
    )
    label = f"Histogram of the inputs of {model.labels[names[0]].text}: {sub}"
    return {"figure": figures.inputs_figure(model, names), "sub": sub, "title": title, "label": label, "outliers": bool(count), "empty": ""}


def _missing(model: ExplorerModel, name: str) -> str:
    return _OLD if name in model.record.candidates else _WAITING
