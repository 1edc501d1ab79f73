"""One layer's page: histograms of its weights and inputs, and what its schemes would cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from paredown.specs import MEASURED, Candidate, Histogram, LayerProfile, Scheme
from paredown_widgets import numbers
from paredown_widgets.figures.scales import decade_ticks
from paredown_widgets.figures.spectrum import SERIES
from paredown_widgets.figures.style import axis, escape, layout, log_range, note, rounded, token
from paredown_widgets.model import ExplorerModel
from paredown_widgets.schemes import bits_of, describe

Json = dict[str, Any]
STYLES = (
    ("a", "circle", "solid"),
    ("b", "square", "5px,2px"),
    ("c", "triangle-up", "3px,2px"),
    ("ink2", "diamond", "1.5px,2px"),
)
"""Colour, symbol and dash of the families of schemes; those beyond share the last."""
_HOLD = 0.7  # where an axis of counts begins: a bin of one value is seen


def weights_figure(model: ExplorerModel, names: Sequence[str]) -> Json:
    """Histogram of the first layer's weights; the others are outlines over it.

    Returns:
        Plotly JSON; traces ``weights``, and ``outline:LAYER`` for each further layer.
    """
    return _histograms(model, names, "Weight", lambda profile: [("weights", profile.weights, "a", "weights")])


def inputs_figure(model: ExplorerModel, names: Sequence[str]) -> Json:
    """Histogram of the first layer's inputs over the calibration tokens, outlier channels in a colour of their own; the others are outlines.

    Returns:
        Plotly JSON; traces ``ordinary``, ``outliers`` where there are outlier channels, and ``outline:LAYER`` for each further layer.
    """

    def parts(profile: LayerProfile) -> list[tuple[str, Histogram, str, str]]:
        seen = profile.inputs
        if seen is None:
            return []
        found = [("ordinary", seen.ordinary, "a", "inputs")]
        return [*found, ("outliers", seen.outliers, "c", "inputs of outlier channels")] if seen.outliers else found

    return _histograms(model, names, "Input activation", parts)


def _histograms(
    model: ExplorerModel, names: Sequence[str], title: str, parts: Callable[[LayerProfile], list[tuple[str, Histogram, str, str]]]
) -> Json:
    known = {name: found for name in names if (profile := model.record.profiles.get(name)) and (found := parts(profile))}
    data: list[Json] = []
    for place, (name, found) in enumerate(known.items()):
        label = escape(model.labels[name].text)
        if place == 0:
            data += [_bars(uid, histogram, ink, f"{label}, {words}") for uid, histogram, ink, words in found]
        else:
            data.append(_outline(name, label, _summed([histogram for _, histogram, _, _ in found]), *SERIES[place]))
    shown = [histogram for found in known.values() for _, histogram, _, _ in found]
    limit = max((histogram.high for histogram in shown), default=1.0)
    most = max((max(histogram.counts) for histogram in shown), default=1)
    y_range = [math.log10(_HOLD), math.ceil(2 * math.log10(max(most, 2)) + 0.1) / 2]
    notes = _beyond(next(iter(known.values()), []))
    return {
        "data": data,
        "layout": layout(
            xaxis=axis(title, range=[-1.02 * limit, 1.02 * limit], nticks=7),
            yaxis=axis("Count (log)", type="log", range=y_range, **_count_ticks(y_range)),
            barmode="overlay", bargap=0, annotations=notes, margin={"l": 46},
        ),
    }  # fmt: skip


def _bars(uid: str, histogram: Histogram, ink: str, name: str) -> Json:
    width = (histogram.high - histogram.low) / len(histogram.counts)
    return {
        "type": "bar", "uid": uid, "name": name, "x": [rounded(x) for x in histogram.centres], "y": list(histogram.counts),
        "width": rounded(width), "marker": {"color": token(ink), "line": {"width": 0}}, "opacity": 0.75,
        "hovertemplate": f"%{{y:,}} {name.rsplit(', ', 1)[-1]}<br>around %{{x:.3~g}}, ± {width / 2:.2g}<extra></extra>",
    }  # fmt: skip


def _outline(name: str, label: str, histogram: Histogram, ink: str, dash: str) -> Json:
    return {
        "type": "scatter", "uid": f"outline:{name}", "meta": {"layer": name}, "name": label, "mode": "lines",
        "x": [rounded(x) for x in histogram.centres], "y": [max(count, _HOLD) for count in histogram.counts],
        "line": {"shape": "hvh", "width": 1.3, "color": token(ink), "dash": dash}, "hovertemplate": f"{label}<br>%{{y:,.0f}} around %{{x:.3~g}}<extra></extra>",
    }  # fmt: skip


def _summed(parts: list[Histogram]) -> Histogram:
    counts = tuple(map(sum, zip(*(part.counts for part in parts), strict=True)))
    return Histogram(parts[0].low, parts[0].high, counts)


def _beyond(found: list[tuple[str, Histogram, str, str]]) -> list[Json]:
    """What the bins leave out, at the edge where it is."""
    notes: list[Json] = []
    for side, arrow, x, anchor in (("below", "← {}", 0, "left"), ("above", "{} →", 1, "right")):
        count = sum(getattr(histogram, side) for _, histogram, _, _ in found)
        if count:
            notes.append(
                note(
                    arrow.format(f"{count:,} beyond"), "ink2", x=x, xref="paper", y=1, yref="paper", xanchor=anchor, yanchor="top", yshift=2
                )
            )
    return notes


def _count_ticks(y_range: list[float]) -> Json:
    powers = range(0, math.floor(y_range[1]) + 1, 2 if y_range[1] > 4 else 1)
    words = [f"{10**power:,}" if power <= 3 else "10" + str(power).translate(numbers.RAISED) for power in powers]
    return {"tickvals": [10.0**power for power in powers], "ticktext": words}


@dataclass(frozen=True)
class Family:
    """Schemes that differ in their bits alone.

    Attributes:
        label: In words, such as ``int + 2:4``.
        best: Bits to the scheme of that many with the least predicted loss, rising.
    """

    label: str
    best: dict[int, Scheme]


def families(offered: dict[Scheme, Candidate]) -> list[Family]:
    """The schemes of a layer as curves: by kind of number, sparsity and rank; of several solvers or group sizes the one with the least loss.

    Example:
        >>> from paredown.specs import Scheme
        >>> made = {s: Candidate("l", s, s, 1, 0.1, 0.0, 0.0) for s in map(Scheme.parse, ("int3g64", "int4g64", "int4g64+2:4"))}
        >>> [(family.label, list(family.best)) for family in families(made)]
        [('int', [3, 4]), ('int + 2:4', [4])]
    """
    found: dict[str, dict[int, Scheme]] = {}
    for scheme, candidate in offered.items():
        bits = bits_of(scheme)
        if bits is None or candidate.loss_increase <= 0:
            continue
        best = found.setdefault(family_of(scheme), {})
        if bits not in best or candidate.loss_increase < offered[best[bits]].loss_increase:
            best[bits] = scheme
    order = sorted(found, key=lambda label: (-len(found[label]), list(found).index(label)))
    return [Family(label, dict(sorted(found[label].items()))) for label in order]


def family_of(scheme: Scheme) -> str:
    """What schemes of one curve have in common, in words."""
    kind = scheme.weight.kind if scheme.weight else "kept"
    activation = f", inputs {scheme.activation.bits} bit" if scheme.activation else ""
    parts = [f"{kind}{activation}", str(scheme.sparsity or ""), f"rank {scheme.low_rank.rank}" if scheme.low_rank else ""]
    return " + ".join(filter(None, parts))


def schemes_figure(model: ExplorerModel, name: str) -> Json:
    """What a layer's schemes are predicted to cost against their bits, with the plan's place; solid where measured with the layer alone.

    Returns:
        Plotly JSON; traces ``family:LABEL``, ``alone:LABEL``, and ``plan``. A point's customdata is its scheme.
    """
    offered = model.record.candidates.get(name, {})
    found = families(offered)
    data: list[Json] = []
    for place, family in enumerate(found):
        data += _family(family, offered, STYLES[min(place, len(STYLES) - 1)])
    now = model.editor.schemes[name]
    bits, here = bits_of(now), offered.get(now)
    shapes: list[Json] = []
    notes: list[Json] = []
    if bits is not None and here is not None and here.loss_increase > 0:
        shapes.append(
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": bits,
                "x1": bits,
                "y0": 0,
                "y1": 1,
                "line": {"color": token("plan"), "width": 1.3, "dash": "1.5px,2px"},
                "layer": "below",
            }
        )
        data.append({
            "type": "scatter", "uid": "plan", "name": "in the plan", "mode": "markers", "x": [bits], "y": [rounded(here.loss_increase * 1e3)], "hoverinfo": "skip",
            "marker": {"symbol": "star-open", "size": 13, "color": token("plan"), "line": {"width": 1.6}},
        })  # fmt: skip
    losses = [c.loss_increase * 1e3 for family in found for scheme in family.best.values() for c in (offered[scheme],)]
    losses += [
        value * 1e3 for family in found for scheme in family.best.values() if (value := offered[scheme].scores.get(MEASURED, 0.0)) > 0
    ]
    ladder = sorted({bits for family in found for bits in family.best})
    y_range = log_range(losses, step=0.5) if losses else [-3.0, 0.0]
    if shapes and bits is not None:
        late = bool(ladder) and bits > (ladder[0] + ladder[-1]) / 2
        notes.append(
            note(
                f"in the plan: {bits} bit",
                "plan",
                x=bits,
                y=1,
                yref="paper",
                xanchor="right" if late else "left",
                yanchor="top",
                xshift=-5 if late else 5,
                yshift=2,
            )
        )
    pad = 0.06 * max(1, ladder[-1] - ladder[0]) if ladder else 1
    return {
        "data": data,
        "layout": layout(
            xaxis=axis("Bits of the codes", range=[ladder[0] - pad, ladder[-1] + pad] if ladder else [0, 8], tickvals=ladder, ticktext=[str(each) for each in ladder], showgrid=False),
            yaxis=axis("Loss increase, 10⁻³ nats (log)", type="log", range=y_range, **decade_ticks(y_range)),
            shapes=shapes, annotations=notes, margin={"l": 52},
        ),
    }  # fmt: skip


def _family(family: Family, offered: dict[Scheme, Candidate], style: tuple[str, str, str]) -> list[Json]:
    ink, symbol, dash = style
    schemes = list(family.best.values())
    values = [offered[scheme].loss_increase * 1e3 for scheme in schemes]
    errors = [offered[scheme].loss_increase_sd * 1e3 for scheme in schemes]
    hover = [
        f"{escape(describe(scheme))}<br>predicted {numbers.with_error(value, error)}<br>click: set it"
        for scheme, value, error in zip(schemes, values, errors, strict=True)
    ]
    traces: list[Json] = [
        {
            "type": "scatter", "uid": f"family:{family.label}", "meta": {"clickable": True}, "customdata": [str(scheme) for scheme in schemes], "name": family.label,
            "mode": "lines+markers", "x": list(family.best), "y": [rounded(value) for value in values], "line": {"color": token(ink), "width": 1.4, "dash": dash},
            "marker": {"symbol": symbol, "size": 8, "color": token("surface"), "line": {"width": 1.5, "color": token(ink)}}, "hovertext": hover, "hoverinfo": "text",
            "error_y": {
                "type": "data", "symmetric": False, "array": [rounded(error) for error in errors],
                "arrayminus": [rounded(min(error, 0.95 * value)) for value, error in zip(values, errors, strict=True)], "color": token(ink, 0.55), "thickness": 1, "width": 2,
            },
        }
    ]  # fmt: skip
    alone = {bits: value * 1e3 for bits, scheme in family.best.items() if (value := offered[scheme].scores.get(MEASURED, 0.0)) > 0}
    if alone:
        traces.append(
            {
                "type": "scatter", "uid": f"alone:{family.label}", "name": f"{family.label}, measured alone", "mode": "markers", "x": list(alone), "y": [rounded(v) for v in alone.values()],
                "marker": {"symbol": symbol, "size": 6, "color": token("measured")}, "hovertemplate": "measured alone %{y:.3~g}<extra></extra>",
            }
        )  # fmt: skip
    return traces
