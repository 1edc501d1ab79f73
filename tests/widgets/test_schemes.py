"""Schemes of the whole grammar in the explorer: in words, on the ladder of bits, in the panels."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fake_study
from paredown.specs import KEEP, Scheme
from paredown_widgets import plan, sensitivity, summary, tables, what_if
from paredown_widgets.choices import SchemeChoices
from paredown_widgets.model import ExplorerModel
from paredown_widgets.schemes import describe, describe_all
from some_schemes import any_schemes

MIXED = ("int3g64", "int4g64", "int4g64-gptq", "int4g64+2:4", "nf4g64", "int3g64+eora16", "int8g64")


@given(st.lists(any_schemes(), min_size=1, max_size=6))
def test_every_scheme_has_words_and_a_place(schemes):
    choices = SchemeChoices.of([str(scheme) for scheme in [*schemes, KEEP]])
    assert choices.schemes[-1] == KEEP
    assert len({describe(scheme) for scheme in choices.schemes}) == len(choices.schemes)
    assert len(describe_all(choices.schemes)) == len(choices.schemes)
    assert len({str(scheme) for scheme in schemes}) == len(choices.schemes) - 1


@pytest.fixture
def mixed(tmp_path):
    model = ExplorerModel(fake_study.filled(tmp_path / "mixed", schemes=MIXED))
    model.refresh()
    return model


def test_the_panels_show_schemes_of_the_whole_grammar(mixed):
    names = list(mixed.editor.schemes)
    mixed.edit([names[-1]], lambda *_: Scheme.parse("int4g64+2:4"), "prune")
    shown = plan.view(mixed)["cells"][names[-1]]
    assert [shown[part] for part in ("text", "sparsity", "rank", "badge", "said")] == ["4", "2:4", "", "", "4 bit, 2 of 4 kept"]
    rows = what_if.view(mixed)["rows"][names[-1]]
    assert [(row["group"], row["cells"][0]) for row in rows] == [
        *(("bits alone", name) for name in ("3", "4", "4, GPTQ", "4 NormalFloat", "8")),
        ("rank 16", "3"),
        ("2 of 4 kept", "4"),
    ]
    assert tables.layer_table(mixed).loc[names[-1], "scheme"] == "int4g64+2:4"
    json.dumps([plan.view(mixed), sensitivity.view(mixed), summary.view(mixed)])


def test_uniform_plans_are_called_by_their_bits_only_where_bits_say_it(mixed):
    called = {
        plan.found_by: mixed.uniform_bits(digest) for digest, plan in mixed.record.plans.items() if plan.found_by.startswith("uniform")
    }
    assert called["uniform int4g64"] == 4
    assert called["uniform int4g64+2:4"] is called["uniform int4g64-gptq"] is None
