"""Flipped answers against a slow look at every unit; what is shown of texts, pictures, sounds and places in a text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fake_study import FakeStudy, filled
from paredown.errors import ParedownError
from paredown.outcomes import Outcomes
from paredown.specs import Shown
from paredown_widgets import Explorer, flips
from paredown_widgets.comparison import PAGE
from paredown_widgets.flips import Flips
from paredown_widgets.handlers import handle
from paredown_widgets.model import ExplorerModel


def outcomes(answers, labels, sure=None, units=None, **more) -> Outcomes:
    answers, labels = np.array(answers), np.array(labels)
    units = np.ones(len(answers)) if units is None else np.array(units, float)
    ones, sure = np.ones(len(units)), np.linspace(0.5, 0.9, len(answers)) if sure is None else np.array(sure)
    return Outcomes(
        units, ones, ones, ones, ones, answers, sure.astype(np.float32), answers == labels, (), {i: f"class {i}" for i in range(9)}, **more
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("flipped")).folder


@pytest.fixture
def model(folder: Path) -> ExplorerModel:
    made = ExplorerModel(FakeStudy(folder))
    made.refresh()
    made.comparison.opened = True
    handle(made, {"type": "compare_add", "digest": next(d for d in made.measured_plans() if made.uniform_bits(d) == 3)})
    made.comparison.work(made)
    return made


def test_rows_are_those_that_a_look_at_every_unit_finds():
    draw, n = np.random.default_rng(0), 200
    labels = draw.integers(0, 3, n)
    plans = [outcomes(draw.integers(0, 3, n), labels) for _ in range(3)]
    found = Flips(plans[0], plans[1:])
    expected = {"any": set(), "wrong": set(), "right": set()}
    for unit in range(n):
        before = plans[0].answers[unit]
        for plan in plans[1:]:
            after = plan.answers[unit]
            if after != before:
                expected["any"].add(unit)
                if before == labels[unit]:
                    expected["wrong"].add(unit)
                if after == labels[unit]:
                    expected["right"].add(unit)
    for kind, units in expected.items():
        rows = found.rows(kind)
        assert set(rows.tolist()) == units
        assert found.count(kind) == len(units)
        assert (np.diff(plans[0].probabilities[rows]) <= 0).all()  # the surest first


def test_tokens_are_shown_with_what_stands_before_them():
    text = "x" * 200 + "the old house fell"
    ends = (203, 207, 213)
    shown = [Shown(7, text, (" old", " house", " fell"), ends), Shown(4, "ab", ("b",), (1,))]
    before, after = outcomes([1, 2, 3, 5], [1, 2, 3, 5], units=[3, 1]), outcomes([1, 4, 3, 6], [1, 2, 3, 5], units=[3, 1])
    found = Flips(before, [after], shown)
    rows = {int(row): found.asked(int(row)) for row in found.rows()}
    assert set(rows) == {1, 3}
    assert rows[1][1] == "…" + text[207 - flips.CONTEXT : 207]  # no word ends near
    assert (rows[1][2], rows[3][1], rows[3][2]) == (" house", "a", "b")
    table = found.table(["A"])
    assert set(zip(table["sample"], table["place"], table["original"], table["A"], strict=True)) == {
        (7, 1, "class 2", "class 4"),
        (4, 0, "class 5", "class 6"),
    }


def test_what_was_written_is_compared_as_a_whole():
    empty = np.empty(0)

    def wrote(texts, errors):
        return Outcomes(empty, empty, empty, np.array(errors, float), np.full(3, 4.0), np.array([1]), written=tuple(texts))

    before, after = wrote(["a b", "c d", "e f"], [0, 2, 1]), wrote(["a x", "c d!", "e f"], [1, 1, 1])
    found = Flips(before, [after], [Shown(i, labels=(f"said {i}",), media="audio/wav", content=b"RIFF") for i in range(3)])
    assert [found.rows(kind).tolist() for kind in ("any", "wrong", "right")] == [[0, 1], [0], [1]]
    assert found.asked(1)[2] == "said 1"
    table = found.table(["A"], "wrong")
    assert table.loc[0, ["original", "A", "original_word_errors", "A_word_errors", "A_right"]].tolist() == ["a b", "a x", 0, 1, False]


def test_samples_without_labels_only_change():
    before, after = (Outcomes(*(np.ones(2),) * 5, np.array(answers), np.full(2, 0.6, np.float32)) for answers in ([0, 1], [0, 2]))
    found = Flips(before, [after])
    assert not found.labelled
    assert found.rows("any").tolist() == [1]
    assert found.count("wrong") == 0
    assert found.asked(1) == (Shown(1), "", "")


def test_the_view_pages_and_filters(model: ExplorerModel) -> None:
    view = flips.view(model)
    every = len(flips.flips_of(model)[0].rows("any"))
    assert view["kinds"][0]["label"] == f"Any change {every}"
    assert len(view["rows"]) == min(PAGE, every)
    assert view["more"] == max(0, every - PAGE)
    handle(model, {"type": "more_flips"})
    assert len(flips.view(model)["rows"]) == min(2 * PAGE, every)
    handle(model, {"type": "flips", "id": "right"})
    rows = flips.view(model)["rows"]
    assert 0 < len(rows) <= PAGE
    assert all("right" in [plan["kind"] for plan in row["plans"]] for row in rows)
    handle(model, {"type": "flips", "id": "sideways"})
    assert model.error["text"].startswith("flips must be one of any, wrong, right")


def test_the_view_is_worked_out_again_only_when_it_changes(model: ExplorerModel) -> None:
    key = flips.key(model)
    handle(model, {"type": "select", "layers": [next(iter(model.labels))]})
    handle(model, {"type": "budget", "bytes": 9e6})
    assert flips.key(model) == key
    handle(model, {"type": "flips", "id": "wrong"})
    assert flips.key(model) != key


def test_sounds_are_sent_when_they_are_asked_for(model: ExplorerModel) -> None:
    model.comparison._shown = tuple(
        Shown(one.index, labels=one.labels, media="audio/wav", content=b"RIFF1234") for one in model.comparison.shown
    )
    rows = flips.view(model)["rows"]
    assert {row["media"] for row in rows} == {"audio/wav"}
    assert {row["src"] for row in rows} == {""}
    for row in rows[:12]:
        handle(model, {"type": "hear", "sample": row["sample"]})
    sent = [row["sample"] for row in flips.view(model)["rows"] if row["src"].startswith("data:audio/wav;base64,")]
    assert sent == [row["sample"] for row in rows[4:12]]


def test_the_dataframe_has_every_row_and_the_copy_makes_it_again(folder: Path, tmp_path: Path) -> None:
    explorer = Explorer(FakeStudy(shutil.copytree(folder, tmp_path / "study")))  # what is compared is kept there
    try:
        model = explorer.model
        explorer.compare(next(digest for digest in model.measured_plans() if model.uniform_bits(digest) == 3))
        table = explorer.flips()
        assert len(table) > PAGE
        assert (table["original"] != table["B"]).sum() == explorer.compare().loc["B", "flipped"]
        wrong = explorer.flips("wrong")
        assert (wrong["original_right"] & ~(wrong["A_right"] & wrong["B_right"])).all()
        handle(model, {"type": "copy_flips"})
        space: dict = {}
        exec(model.comparison.copied["text"], space)
        pd.testing.assert_frame_equal(space["flips"], table)
        with pytest.raises(ParedownError, match="kind must be one of"):
            explorer.flips("sideways")
        json.dumps(flips.view(model))
    finally:
        explorer.close()


def test_without_answers_the_dataframe_says_what_to_do(folder: Path) -> None:
    study = FakeStudy(folder)
    study.answered = False
    explorer = Explorer(study)
    try:
        with pytest.raises(ParedownError, match="measure one, or measure it again"):
            explorer.flips()
    finally:
        explorer.close()
