"""Gestures on the three handles, from the message to the plan, and what the toolbar is told."""

from __future__ import annotations

import pytest

from fake_study import FakeStudy, filled
from paredown.specs import Scheme
from paredown_widgets import handles, plan, what_if
from paredown_widgets.handlers import handle
from paredown_widgets.model import ExplorerModel
from paredown_widgets.snapshot import snapshot

SCHEMES = (
    "int3g64", "int4g64", "int8g64", "int4g64-gptq", "int8g64a8", "int3g64+eora16", "int4g64+eora16", "int4g64+2:4", "int8g64+2:4", "int4g64+2:4+eora16",
)  # fmt: skip
Q, K, V, OUT = (f"bert.encoder.layer.0.attention.{tail}" for tail in ("self.query", "self.key", "self.value", "output.dense"))
FC1, FC2 = "bert.encoder.layer.0.intermediate.dense", "bert.encoder.layer.0.output.dense"
EMBEDDINGS = "bert.embeddings.word_embeddings"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("rich"), blocks=2, schemes=SCHEMES).folder


@pytest.fixture
def model(folder):
    made = ExplorerModel(FakeStudy(folder, blocks=2, schemes=SCHEMES), offline=True)
    made.refresh()
    made.editor.start_from(dict.fromkeys(made.editor.schemes, Scheme.parse("int4g64")))
    return made


def schemes(model, *names):
    return [str(model.editor.schemes[name]) for name in names]


def test_each_handle_leaves_the_others_where_they_are(model, hand):
    hand("sparsity", layers=[OUT], sparsity="2:4")
    hand("rank", layers=[OUT], rank=16)
    assert schemes(model, OUT) == ["int4g64+2:4+eora16"]
    hand("sparsity", layers=[OUT], sparsity=None)
    hand("bits", layers=[OUT], bits=3)
    assert schemes(model, OUT) == ["int3g64+eora16"]
    assert model.status == ""
    hand("rank", layers=[OUT], rank=None)
    assert schemes(model, OUT) == ["int3g64"]


def test_what_can_not_stay_is_said_and_undone_with_it(model, hand):
    hand("bits", layers=[OUT], bits=3)
    hand("sparsity", layers=[OUT, FC1], sparsity="2:4")
    assert schemes(model, OUT, FC1) == ["int4g64+2:4", "int4g64+2:4"]
    assert model.status == "also changed in 1 of 2 layers: 4 bit"
    assert plan.view(model)["undo_label"] == "2 layers to 2:4"
    hand("undo")
    assert schemes(model, OUT, FC1) == ["int3g64", "int4g64"]


def test_steps_go_along_what_is_offered_beside_the_others(model, hand):
    hand("scheme", layers=[OUT], scheme="int4g64+2:4")
    hand("step", layers=[OUT, FC1], by=-1, handle="bits")
    assert schemes(model, OUT, FC1) == ["int4g64+2:4", "int3g64"]  # 2:4 is not offered at 3 bits
    hand("step", layers=[OUT, FC1], by=1, handle="rank")
    assert schemes(model, OUT, FC1) == ["int4g64+2:4+eora16", "int3g64+eora16"]
    hand("step", layers=[FC1], by=1, handle="sparsity")
    assert schemes(model, FC1) == ["int3g64+eora16"]
    hand("step", layers=[FC1], by=1)
    assert schemes(model, FC1) == ["int4g64+eora16"]


def test_a_circle_goes_where_the_last_free_layer_goes_next(model, hand):
    hand("scheme", layers=[OUT], scheme="int4g64+2:4")
    hand("lock", layers=[FC2], locked=True)
    for wanted in ("int4g64+2:4", "int4g64", "int4g64+2:4"):
        hand("cycle", layers=[OUT, FC1, FC2], handle="sparsity")
        assert schemes(model, OUT, FC1, FC2) == [wanted, wanted, "int4g64"]


def test_fused_layers_move_together_and_locked_ones_stay(model, hand):
    hand("sparsity", layers=[K], sparsity="2:4")
    assert schemes(model, Q, K, V) == ["int4g64+2:4"] * 3
    hand("lock", layers=[Q], locked=True)
    hand("rank", layers=[K, OUT], rank=16)
    assert schemes(model, Q, K, V, OUT) == [*["int4g64+2:4"] * 3, "int4g64+eora16"]


def test_one_gesture_is_one_undo_step(model, hand):
    for by in (1, -1, 1):
        hand("step", layers=[OUT], by=by, handle="sparsity", gesture="drag")
    assert schemes(model, OUT) == ["int4g64+2:4"]
    hand("undo")
    assert schemes(model, OUT) == ["int4g64"]
    assert not model.editor.can_undo


def test_a_layer_gets_only_what_all_that_are_fused_with_it_are_offered(folder):
    model = ExplorerModel(FakeStudy(folder, blocks=2, schemes=SCHEMES), offline=True)
    model.refresh()
    for name in (V, EMBEDDINGS):
        model.record.candidates[name] = {s: c for s, c in model.record.candidates[name].items() if s.low_rank is None}
    model._price(1)
    model.editor.start_from(dict.fromkeys(model.editor.schemes, Scheme.parse("int4g64")))
    handle(model, {"type": "rank", "layers": [Q, OUT, EMBEDDINGS], "rank": 16})
    assert schemes(model, Q, K, V, OUT, EMBEDDINGS) == [*["int4g64"] * 3, "int4g64+eora16", "int4g64"]
    assert model.status == "4 of 5 layers can't have that and stay"
    offer = handles.view(model)
    assert len(offer["kinds"]) == 2
    poor = offer["kinds"][offer["kind"].get(Q, 0)]
    assert offer["kind"].get(EMBEDDINGS, 0) == offer["kind"].get(Q, 0) != offer["kind"].get(OUT, 0)
    assert poor["needs"]["4|none|16"] == "int4g64+eora16 is not offered to this layer"
    assert poor["needs"]["8|2:4|16"] == "that would need int8g64+2:4+eora16 among the study's schemes"
    assert "4|none|16" not in poor["at"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"type": "sparsity", "sparsity": "4:8"}, "expected one of this study's sparsity (none, 2:4), got 4:8"),
        ({"type": "sparsity", "sparsity": "much"}, "expected a sparsity such as 2:4"),
        ({"type": "rank", "rank": 64}, "expected one of this study's rank (none, 16), got 64"),
        ({"type": "step", "by": 1, "handle": "colour"}, "handle must be one of bits, sparsity, rank, got 'colour'"),
        ({"type": "cycle", "handle": None}, "handle must be one of bits, sparsity, rank, got None"),
    ],
)
def test_what_the_study_does_not_have_is_an_error_that_changes_nothing(model, hand, message, words):
    before = dict(model.editor.schemes)
    assert words in hand.refused(message.pop("type"), layers=[OUT], **message)
    assert model.editor.schemes == before


def test_the_toolbar_is_told_all_values_and_every_reason(model):
    offer = handles.view(model)
    values = {one["id"]: [rung["value"] for rung in one["rungs"]] for one in offer["handles"]}
    assert values == {"bits": [3, 4, 8], "sparsity": [None, "2:4"], "rank": [None, 16]}
    (kind,) = offer["kinds"]
    everything = {
        f"{bits}|{sparsity or 'none'}|{rank or 'none'}" for bits in (3, 4, 8) for sparsity in (None, "2:4") for rank in (None, 16)
    }
    assert {*kind["at"], *kind["needs"]} == everything
    assert not {*kind["at"]} & {*kind["needs"]}
    assert [one["group"] for one in offer["schemes"]].count("2 of 4 kept, rank 16") == 1


def test_a_study_of_bits_alone_has_handles_without_a_choice(tmp_path):
    model = ExplorerModel(filled(tmp_path, blocks=1))
    model.refresh()
    lengths = {one["id"]: len(one["rungs"]) for one in snapshot(model)["handles"]["handles"]}
    assert lengths == {"bits": 6, "sparsity": 1, "rank": 1}
    assert not {"sparsity", "rank"} & {one["id"] for one in snapshot(model)["plan"]["color_options"]}


def test_cells_carry_marks_and_words(model, hand):
    hand("scheme", layers=[OUT], scheme="int4g64+2:4+eora16")
    hand("scheme", layers=[FC1], scheme="int8g64a8")
    cells = plan.view(model)["cells"]
    parts = ("text", "sparsity", "rank", "badge", "said", "at")
    assert [cells[OUT][part] for part in parts] == ["4", "2:4", "r16", "", "4 bit, 2 of 4 kept, rank 16", "4|2:4|16"]
    assert [cells[FC1][part] for part in parts] == ["8", "", "", "a8", "8 bit, a8", "8|none|none"]


@pytest.mark.parametrize(("color_by", "high"), [("sparsity", "2:4"), ("rank", "16")])
def test_the_plan_is_coloured_by_sparsity_and_rank(model, hand, color_by, high):
    hand("scheme", layers=[OUT], scheme="int4g64+2:4+eora16")
    hand("color_by", id=color_by)
    view = plan.view(model)
    assert {name for name, cell in view["cells"].items() if cell["color"] == 7} == {OUT}
    assert {cell["color"] for name, cell in view["cells"].items() if name != OUT} == {0}
    assert view["legend"] == {"low": "none", "high": high, "unit": ""}


def test_the_table_beside_the_plan_is_grouped_and_keeps_to_a_screen(model, monkeypatch):
    rows = what_if.view(model)["rows"][OUT]
    groups = [row["group"] for row in rows]
    assert groups == sorted(groups, key=["bits alone", "rank 16", "2 of 4 kept", "2 of 4 kept, rank 16"].index)
    assert [row["cells"][0] for row in rows][:5] == ["3", "4", "4, GPTQ", "8", "8, inputs at 8 bit"]
    monkeypatch.setattr(what_if, "_MOST_ROWS", 9)
    best = what_if.view(model)
    assert [row["cells"][0] for row in best["rows"][OUT]][:3] == ["3", "4, GPTQ", "8"]
    assert "of several solvers the one with the least loss" in best["note"][OUT]


def test_an_edit_asks_each_layer_once(folder, monkeypatch):
    """The work of an edit grows with the layers, not with their square."""
    model = ExplorerModel(FakeStudy(folder, blocks=2, schemes=SCHEMES), offline=True)
    model.refresh()
    asked = []
    real = ExplorerModel.choices_of
    monkeypatch.setattr(ExplorerModel, "choices_of", lambda self, name: asked.append(name) or real(self, name))
    handle(model, {"type": "rank", "layers": list(model.editor.schemes), "rank": 16})
    assert sorted(asked) == sorted(model.editor.schemes)
    assert {scheme.low_rank.rank for scheme in model.editor.schemes.values()} == {16}
