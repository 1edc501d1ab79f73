"""Bits, sparsity and rank as handles: what they step through, and what a value takes along that is offered elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.specs import KEEP, Scheme, Sparsity
from paredown_widgets.choices import HANDLES, SchemeChoices, also_changed, position, value_of
from some_schemes import any_schemes

RICH = (
    "int3g64", "int4g64", "int8g64", "int4g64-gptq", "nf4g64", "int3g64+eora16", "int4g64+eora16", "int3g64+eora32", "int4g64+2:4-wanda",
    "int8g64+2:4", "int4g64-gptq+2:4", "int4g64+50%", "int4g64+2:4+eora16", "keep",
)  # fmt: skip
CHOICES = SchemeChoices.of(RICH)


def parsed(text):
    return Scheme.parse(text)


@given(st.lists(any_schemes(), min_size=1, max_size=8), st.data())
def test_handles_reach_everything_that_is_offered_and_nothing_else(schemes, data):
    choices = SchemeChoices.of([str(scheme) for scheme in [*schemes, KEEP]])
    scheme = data.draw(st.sampled_from(choices.schemes))
    for index, handle in enumerate(HANDLES):
        assert value_of(scheme, handle) in choices.beside(scheme, handle)
        for value in choices.values(handle):
            moved = choices.moved(scheme, handle, value)
            assert moved in choices.schemes
            assert value_of(moved, handle) == value
            stays = [part for at, part in enumerate(position(moved)) if at != index] == [
                part for at, part in enumerate(position(scheme)) if at != index
            ]
            assert stays == (value in choices.beside(scheme, handle))
        ladder = choices.beside(scheme, handle)
        here = ladder.index(value_of(scheme, handle))
        for by in (-1, 1):
            wanted = ladder[max(0, min(len(ladder) - 1, here + by))]
            assert value_of(choices.stepped(scheme, handle, by), handle) == wanted
        assert choices.moved(scheme, handle, value_of(scheme, handle)) == scheme or len(choices.places[position(scheme)]) > 1


@given(st.lists(any_schemes(), min_size=2, max_size=8), st.sampled_from(HANDLES))
def test_a_circle_comes_back(schemes, handle):
    choices = SchemeChoices.of([str(scheme) for scheme in schemes])
    scheme = choices.schemes[0]
    seen = []
    for _ in choices.schemes:
        scheme = choices.moved(scheme, handle, choices.after(scheme, handle))
        seen.append(value_of(scheme, handle))
    if len(choices.values(handle)) > 1:
        assert len(set(seen)) > 1


@pytest.mark.parametrize(
    ("scheme", "handle", "value", "wanted"),
    [
        ("int4g64", "bits", 3, "int3g64"),
        ("int4g64-gptq", "bits", 8, "int8g64"),
        ("int4g64+eora16", "bits", 3, "int3g64+eora16"),
        ("int4g64-gptq+2:4", "sparsity", None, "int4g64-gptq"),
        ("int4g64-gptq", "sparsity", "2:4", "int4g64-gptq+2:4"),
        ("int4g64+eora16", "sparsity", "2:4", "int4g64+2:4+eora16"),
        ("int4g64+2:4-wanda", "rank", 16, "int4g64+2:4+eora16"),
        # what is not offered beside the others takes the nearest along
        ("int4g64+2:4+eora16", "bits", 8, "int8g64+2:4"),
        ("int3g64+eora16", "sparsity", "2:4", "int4g64+2:4+eora16"),
        ("int8g64", "rank", 16, "int4g64+eora16"),
        ("int4g64+50%", "rank", 32, "int3g64+eora32"),
        ("int4g64+2:4-wanda", "bits", None, "keep"),
    ],
)
def test_a_handle_keeps_the_others_where_that_is_offered(scheme, handle, value, wanted):
    value = Sparsity(value) if isinstance(value, str) else value
    assert str(CHOICES.moved(parsed(scheme), handle, value)) == wanted


def test_values_rise():
    assert CHOICES.values("bits") == (3, 4, 8, None)
    assert [str(value) for value in CHOICES.values("sparsity")] == ["None", "2:4", "50%"]
    assert CHOICES.values("rank") == (None, 16, 32)
    assert CHOICES.bits == (3, 4, 8)
    assert str(CHOICES.middle) == "int4g64"


def test_a_plan_from_elsewhere_steps_to_the_nearest_rung():
    choices = SchemeChoices.of(["int3g64", "int8g64"])
    assert str(choices.stepped(parsed("int5g64"), "bits", 1)) == "int8g64"
    assert str(choices.stepped(parsed("int5g64"), "bits", -1)) == "int3g64"


def test_what_no_scheme_has_is_no_move():
    assert CHOICES.moved(parsed("int4g64"), "rank", 64) is None
    with pytest.raises(ParedownError, match=r"expected one of this study's bits \(3, 4, 8\), got 5"):
        CHOICES.uniform(5)
    assert "sparsity (none, 2:4, 50%), got 4:8" in str(CHOICES.missing("sparsity", "4:8"))


def test_what_was_taken_along_is_said_in_words():
    four, eight, dense = parsed("int4g64-gptq+2:4"), parsed("int8g64+2:4"), parsed("int4g64")
    assert also_changed([(four, eight)], "bits") == "also changed: no GPTQ any more"
    assert also_changed([(four, eight), (dense, parsed("int8g64"))], "bits") == "also changed in 1 of 2 layers: no GPTQ any more"
    assert also_changed([(four, parsed("int4g64-gptq"))], "sparsity") == ""
    assert also_changed([(parsed("nf4g64"), parsed("int8g64+2:4"))], "bits") == "also changed: 2 of 4 kept, no NormalFloat any more"
    assert also_changed([(four, KEEP)], "bits") == ""
