"""Flipped answers: the held-out samples that plans answer otherwise than the original, with what they were asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from paredown.outcomes import Outcomes
from paredown.specs import Shown
from paredown_widgets import numbers
from paredown_widgets.comparison import KINDS, PAGE, Entry, Kind

if TYPE_CHECKING:
    import pandas as pd

    from paredown_widgets.model import ExplorerModel

Json = dict[str, Any]
_WORD = 20  # characters in which a word may be expected to end
CONTEXT = 140
"""Characters of a text that are shown before the place where it is continued."""
_IN_A_REPORT = 12  # sounds that a saved report holds
_NOUNS = (
    ("sentiment", "review"),
    ("review", "review"),
    ("image", "image"),
    ("clothes", "image"),
    ("speech", "clip"),
    ("recognition", "clip"),
)


class Flips:
    """Where plans answer otherwise than the original.

    A row is a counted unit: a sample that is answered whole, or a token of a text. Where the model writes, it is a sample, and what it
    wrote is its answer.

    Args:
        original: What the original model did.
        plans: What the plans did, on the same samples.
        shown: The samples as a person sees them; fewer or none where that was not kept.
    """

    def __init__(self, original: Outcomes, plans: Sequence[Outcomes], shown: Sequence[Shown] = ()) -> None:
        self.original, self.plans, self.shown = original, plans, shown
        self.writes = bool(original.written) and all(plan.written for plan in plans)
        samples = len(original.written) if self.writes else len(original.units)
        self.sample = np.arange(samples) if self.writes else np.repeat(np.arange(samples), original.units.astype(int))
        starts = np.cumsum(original.units.astype(int)) - original.units.astype(int)
        self.place = np.zeros(samples, int) if self.writes else np.arange(len(self.sample)) - starts[self.sample]
        self.labelled = self.writes or len(original.right) > 0
        self._masks = self._decide()

    def _decide(self) -> dict[Kind, np.ndarray]:
        none = np.zeros(len(self.sample), bool)
        masks: dict[Kind, np.ndarray] = {kind: none.copy() for kind in KINDS}
        before = self.original
        for plan in self.plans:
            if self.writes:
                masks["any"] |= np.array([a != b for a, b in zip(plan.written, before.written, strict=True)], bool)
                masks["wrong"] |= plan.numerator > before.numerator
                masks["right"] |= plan.numerator < before.numerator
                continue
            masks["any"] |= plan.answers != before.answers
            if self.labelled:
                masks["wrong"] |= before.right & ~plan.right
                masks["right"] |= ~before.right & plan.right
        return masks

    def rows(self, kind: Kind = "any") -> np.ndarray:
        """The rows of a kind: where the original was surest first, or what was written with the most errors."""
        found = np.flatnonzero(self._masks[kind])
        if self.writes:
            weight = np.max([np.abs(plan.numerator - self.original.numerator) for plan in self.plans], axis=0)
        else:
            weight = self.original.probabilities
        return found[np.argsort(-weight[found], kind="stable")]

    def count(self, kind: Kind) -> int:
        """Rows of a kind."""
        return int(self._masks[kind].sum())

    def asked(self, row: int) -> tuple[Shown, str, str]:
        """The sample of a row, the text to read, and its label in words."""
        sample, place = int(self.sample[row]), int(self.place[row])
        shown = self.shown[sample] if sample < len(self.shown) else Shown(sample)
        label = (
            shown.labels[place]
            if place < len(shown.labels) and (self.writes or len(shown.labels) == int(self.original.units[sample]))
            else ""
        )
        if not shown.places:
            return shown, shown.text, label
        end = shown.places[place] if place < len(shown.places) else len(shown.text)
        start = max(0, end - CONTEXT)
        if start:  # at a word's beginning where there is one near
            start += max(0, shown.text[start : start + _WORD].find(" ") + 1)
        return shown, ("…" if start else "") + shown.text[start:end], label

    def answer(self, plan: Outcomes, row: int) -> tuple[str, float | None, bool | None]:
        """What a plan answers: in words, how sure it is, and whether that is right."""
        if self.writes:
            errors, words = int(plan.numerator[row]), int(plan.denominator[row])
            return plan.written[row], None if not words else 1 - errors / words, errors == 0
        answer = int(plan.answers[row])
        return plan.words.get(answer, str(answer)), float(plan.probabilities[row]), bool(plan.right[row]) if self.labelled else None

    def table(self, letters: Sequence[str], kind: Kind = "any") -> pd.DataFrame:
        """One row a flipped answer, for programs."""
        import pandas as pd

        records = []
        for row in self.rows(kind):
            shown, text, label = self.asked(int(row))
            record: Json = {"sample": shown.index, "input": text, "label": label}
            if not self.writes and self.original.units.max(initial=1) > 1:
                record["place"] = int(self.place[row])
            for name, plan in (("original", self.original), *zip(letters, self.plans, strict=True)):
                answer, sure, right = self.answer(plan, int(row))
                record |= {name: answer, f"{name}_right": right}
                record |= {f"{name}_word_errors": int(plan.numerator[row])} if self.writes else {f"{name}_probability": sure}
            records.append(record)
        return pd.DataFrame(records)


def flips_of(model: ExplorerModel) -> tuple[Flips, list[Entry]] | None:
    """The flips of the compared plans whose answers are known; None where there are none, or the original's are not."""
    comparison = model.comparison
    original = comparison.original(model)
    entries = [entry for entry in comparison.entries(model) if entry.outcomes is not None and entry.outcomes.answered]
    if original is None or not original.answered or not entries:
        return None
    return Flips(original, [entry.outcomes for entry in entries if entry.outcomes is not None], comparison.shown), entries


def key(model: ExplorerModel) -> tuple[object, ...]:
    """What the view depends on."""
    comparison = model.comparison
    plans = (
        tuple((entry.letter, entry.plan.digest, id(entry.measurement)) for entry in comparison.entries(model)) if comparison.opened else ()
    )
    return (comparison.opened, comparison.ready, comparison.kind, comparison.rows, comparison.heard, comparison.copied["n"], plans)


def view(model: ExplorerModel) -> Json:
    """State of the `flips` trait."""
    comparison = model.comparison
    found = flips_of(model) if comparison.opened else None
    if found is None:
        return {"rows": [], "empty": _empty(model), "kinds": [], "kind": comparison.kind, "plans": [], "copied": comparison.copied}
    flips, entries = found
    kinds: list[Kind] = [kind for kind in KINDS if kind == "any" or flips.labelled]
    kind = comparison.kind if comparison.kind in kinds else "any"
    rows = flips.rows(kind)
    noun = _noun(model, flips)
    return {
        "rows": [_row(model, flips, int(row), index) for index, row in enumerate(rows[: comparison.rows])],
        "plans": [{"letter": entry.letter, "name": entry.name} for entry in entries],
        "kind": kind,
        "kinds": [{"id": each, "label": f"{KINDS[each]} {flips.count(each):,}"} for each in kinds],
        "count": f"{flips.count('any'):,} of {len(flips.sample):,} {noun}s where a plan answers otherwise than the original{_without(model, entries)}",
        "more": 0 if model.offline else max(0, len(rows) - comparison.rows),
        "page": PAGE,
        "head": "Text before the token" if noun == "token" else numbers.capital(noun),
        "labelled": flips.labelled,
        "writes": flips.writes,
        "copied": comparison.copied,
        "empty": "" if len(rows) else f"No {noun} is {'answered otherwise' if kind == 'any' else KINDS[kind].lower()}.",
    }


def _without(model: ExplorerModel, known: Sequence[Entry]) -> str:
    """Which plans are left out, and why."""
    letters = {entry.letter for entry in known}
    left = [entry.letter for entry in model.comparison.entries(model) if entry.letter not in letters]
    return f"; {' and '.join(left)} not measured" if left else ""


def _noun(model: ExplorerModel, flips: Flips) -> str:
    if not flips.writes and flips.original.units.max(initial=1) > 1:
        return "token"
    task = (model.record.info.task_label if model.record.info else "").lower()
    return next((noun for word, noun in _NOUNS if word in task), "sample")


def _row(model: ExplorerModel, flips: Flips, row: int, index: int) -> Json:
    shown, text, label = flips.asked(row)
    sample = int(flips.sample[row])
    loud = shown.media == "audio/wav"
    loaded = not loud or sample in model.comparison.heard or (model.offline and index < _IN_A_REPORT)
    return {
        "id": f"{sample}.{int(flips.place[row])}",
        "sample": sample,
        "index": f"{shown.index}",
        "text": text,
        "goes_on": bool(shown.places),
        "media": shown.media if shown.content and (loaded or not model.offline) else "",
        "src": shown.uri if loaded else "",
        "label": label,
        "original": _answer(flips, flips.original, row),
        "plans": [_answer(flips, plan, row) for plan in flips.plans],
    }


def _answer(flips: Flips, plan: Outcomes, row: int) -> Json:
    """What stands in a cell; `kind` is what it is beside the original's."""
    words, sure, right = flips.answer(plan, row)
    before, _, was = flips.answer(flips.original, row)
    errors = int(plan.numerator[row]) if flips.writes else 0
    if flips.writes:
        worse = errors - int(flips.original.numerator[row])
        kind = "wrong" if worse > 0 else "right" if worse < 0 else "changed" if words != before else "same"
        told = "right" if right else f"{errors} of {int(plan.denominator[row])} wrong"
    else:
        kind = "same" if words == before else "wrong" if was and right is False else "right" if was is False and right else "changed"
        told = "" if right is None else "right" if right else "wrong"
    answer = "" if told and len(flips.original.words) <= 2 and not flips.writes else _visible(words)  # of two classes the label tells which
    return {"answer": answer, "told": told, "sure": "" if flips.writes or sure is None else numbers.fixed(sure, 2), "kind": kind}


def _visible(words: str) -> str:
    """An answer that may be a piece of text: without the space before it, and with a sign for what can't be seen."""
    return words.strip() or {"\n": "↵", "": "–"}.get(words.strip(" "), "␣")


def _empty(model: ExplorerModel) -> str:
    comparison, baseline = model.comparison, model.record.baseline
    if baseline is None:
        return "Flipped answers appear here once the original and a plan were measured."
    original = comparison.original(model)
    measured = [entry for entry in comparison.entries(model) if entry.measurement is not None]
    if not measured:
        return "No plan here was measured yet. Measure this plan, or add one that was: Shift click on a point of the front, or Add plan."
    if original is None:
        return (
            "Reading the answers …"
            if comparison.ready == 0
            else "This study was made before answers were kept. Measure a plan again to see which ones flipped."
        )
    if model.record.info is not None and model.record.info.loss != "kl":
        return "This task offers no predictions, so that there are no answers to hold against each other."
    return "These plans were measured before answers were kept. Measure one again to see which answers flipped."
