from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.specs import KEEP, ActivationFormat, LowRank, Scheme, Sparsity, StudyConfig, WeightFormat, from_json, to_json
from some_schemes import any_schemes, sparsities


@given(any_schemes())
def test_the_short_form_is_read_back(scheme):
    assert Scheme.parse(str(scheme)) == scheme


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("keep", KEEP),
        ("int4g64", Scheme(WeightFormat(4, 64))),
        ("int8", Scheme(WeightFormat(8, None))),
        ("int3g32sym-mse", Scheme(WeightFormat(3, 32, True), "mse")),
        ("int4g64-rtn", Scheme(WeightFormat(4, 64))),
        ("int4g64sym-gptq", Scheme(WeightFormat(4, 64, True), "gptq")),
        ("nf4g64", Scheme(WeightFormat(4, 64, kind="nf"))),
        ("int8a8", Scheme(WeightFormat(8, None), activation=ActivationFormat(8))),
        (
            "int4g64syma4-gptq+2:4",
            Scheme(WeightFormat(4, 64, True), "gptq", Sparsity("2:4"), activation=ActivationFormat(4), criterion="sparsegpt"),
        ),
        ("int8a4static", Scheme(WeightFormat(8, None), activation=ActivationFormat(4, static=True))),
        ("mxfp4", Scheme(WeightFormat(4, 32, kind="mxfp"))),
        ("nvfp4a8", Scheme(WeightFormat(4, 16, kind="nvfp"), activation=ActivationFormat(8))),
        ("int4n128", Scheme(WeightFormat(4, None, neuron_groups=128))),
        ("int2n12sym-sawb", Scheme(WeightFormat(2, None, True, neuron_groups=12), "sawb")),
        ("2:4", Scheme(sparsity=Sparsity("2:4"))),
        ("int4g64-gptq+50%", Scheme(WeightFormat(4, 64), "gptq", Sparsity("50%"), criterion="sparsegpt")),
        ("int4g64-gptq+50%-magnitude", Scheme(WeightFormat(4, 64), "gptq", Sparsity("50%"))),
        ("int4g64-mse+2:4-wanda", Scheme(WeightFormat(4, 64), "mse", Sparsity("2:4"), criterion="wanda")),
        ("int3g64-gptq+2:4-mfac", Scheme(WeightFormat(3, 64), "gptq", Sparsity("2:4"), criterion="mfac")),
        ("4:8-kfac", Scheme(sparsity=Sparsity("4:8"), criterion="kfac")),
        ("nf3g64+lq32:8", Scheme(WeightFormat(3, 64, kind="nf"), low_rank=LowRank(32, 8, "lq"))),
        ("nf3+eora32", Scheme(WeightFormat(3, None, kind="nf"), low_rank=LowRank(32))),
        ("int4g64sym+2:4+svd16:8", Scheme(WeightFormat(4, 64, True), "rtn", Sparsity("2:4"), LowRank(16, 8, "svd"))),
    ],
)
def test_what_the_grammar_says(text, scheme):
    assert Scheme.parse(text) == scheme


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the grammar is"),
        ("int4g64+", "the grammar is"),
        ("int4 + 2:4", "the grammar is"),
        ("4bit", "expected a scheme such as int4g64"),
        ("2:4+int4g64", "the grammar is"),
        ("eora8+2:4", "the grammar is"),
        ("int4g64-wanda+2:4", "rounding must be one of rtn, mse, sawb, hqq, gptq, signround, got 'wanda'"),
        ("int4g64+2:4-mse", "criterion of a sparsity must be one of magnitude, wanda, .*, got 'mse'"),
        ("int7", "bits must be one of 2, 3, 4, 5, 6, 8, got 7"),
        ("nf8", "bits must be one of 2, 3, 4 for nf, got 8"),
        ("nf4sym", "NormalFloat has no zero point"),
        ("nf4-gptq", "gptq finds the codes of an int format, got nf4"),
        ("int4g48", "group_size must be one of"),
        ("int4-best", "rounding must be one of rtn, mse, sawb, hqq, gptq, signround, got 'best'"),
        ("mxfp8", "bits must be one of 4 for mxfp, got 8"),
        ("nvfp4g64", "nvfp4 has blocks of 16 inputs, got 64; leave g out"),
        ("mxfp4sym", "mxfp4 has no zero point"),
        ("nf4n8", "neuron groups are at least one, of an int format"),
        ("int4n0", "neuron groups are at least one"),
        ("int4g64n8", "the grammar is"),
        ("int3sym-sawb", "at 2 and 4 bits alone, got int3sym: .* no level at zero"),
        ("int4-sawb", "symmetric grids with a zero"),
        ("lq8", "lq alternates between factors and a number format .*, got none"),
        ("int4+2:4+lq8", "got 2:4 too"),
        ("int4-gptq+lq8", "got gptq"),
        ("int4-signround+lq8", "got signround"),
        ("int4n4-signround", "whose channels share their scale"),
        ("4:2", r"n below m"),
        ("0%", r"n below m"),
        ("100%", r"n below m"),
        ("eora0", "rank of at least 1"),
        ("svd4:2", "factors of 16, 8, 4 bits"),
        ("int8a6", "activations have 8 or 4 bits, got 6"),
        ("a8", "the grammar is"),
        ("2:4a8", "the grammar is"),
    ],
)
def test_what_is_no_scheme_is_refused_with_the_reason(text, reason):
    with pytest.raises(ParedownError, match=reason):
        Scheme.parse(text)


def test_a_rounding_without_codes_is_refused():
    with pytest.raises(ParedownError, match="gptq finds the codes"):
        Scheme(None, "gptq", Sparsity("2:4"))


def test_a_criterion_without_anything_to_drop_is_refused():
    with pytest.raises(ParedownError, match="sparsegpt finds the weights to drop, and the scheme drops none"):
        Scheme(WeightFormat(4), criterion="sparsegpt")


def test_what_gptq_is_not_told_about_its_mask_is_sparsegpt():
    assert str(Scheme.parse("int4g64-gptq+2:4-sparsegpt")) == "int4g64-gptq+2:4"
    assert str(Scheme.parse("int4g64-mse+2:4-magnitude")) == "int4g64-mse+2:4"


@given(sparsities, st.integers(1, 30), st.integers(1, 100))
def test_counts_add_up(sparsity, out, inputs):
    row, kept = sparsity.kept_in_row(inputs), sparsity.kept(out, inputs)
    assert 0 <= kept <= out * inputs
    assert row is None or kept == out * row
    tail = inputs if sparsity.n_of_m is None else sparsity.n_of_m[1]
    assert abs(kept - (1 - sparsity.fraction) * out * inputs) <= (1 if row is None else out * tail)


@settings(deadline=None)  # pydantic builds its schema in the first example
@given(any_schemes())
def test_a_scheme_travels_as_its_short_form(scheme):
    assert from_json(Scheme, to_json(scheme)) == scheme
    assert to_json(scheme) == f'"{scheme}"'


def test_budgets_lie_between_the_bits_of_the_schemes():
    StudyConfig(schemes=("int4g64+2:4", "int4g64"), budgets=(3.5,))
    with pytest.raises(ParedownError, match="the smallest possible is 3 bits, the largest 4"):
        StudyConfig(schemes=("int4g64+2:4", "int4g64"), budgets=(2.5,))
