"""Schemes of the whole grammar, for Hypothesis, and one of each family."""

from __future__ import annotations

from typing import get_args

from hypothesis import strategies as st

from paredown.specs import BITS, GROUP_SIZES, KEEP, ActivationFormat, Criterion, LowRank, Scheme, Sparsity, WeightFormat
from paredown.specs.scheme_parts import ACTIVATION_BITS, BLOCKS, FACTOR_BITS, NORMAL_FLOAT_BITS, SAWB_BITS

FAMILIES = (
    "int4g64", "int3n6", "nf3g32", "mxfp4", "nvfp4", "int8a8", "int4g32a4static",
    "int3g32-mse", "int4g16sym-sawb", "int3n6-gptq", "int4g32-gptq", "int4g32-hqq", "int3n6sym-hqq", "int4g32-signround",
    "2:4", "4:8", "3:7", "37%", "2:4-wanda", "50%-sparsegpt", "2:4-fisher", "50%-fisher", "2:4-mfac", "50%-mfac", "2:4-kfac", "50%-kfac",
    "int4g32-mse+2:4-wanda", "int3g32-gptq+2:4", "int3g32-gptq+2:4-magnitude", "int3g32-gptq+50%-mfac", "int3g32sym-signround+2:4-wanda", "nvfp4a8+2:4-kfac",
    "svd4", "eora4:8", "int3g32+eora4", "nf3g32+lq4", "int3g32-mse+lq4:8", "int4g32-gptq+2:4+eora4:4",
)  # fmt: skip
"""One scheme of each family of the grammar, and some of their combinations."""

groups = st.sampled_from([*GROUP_SIZES, None])
grouped = st.builds(WeightFormat, st.sampled_from(BITS), groups, st.booleans())
neuron_groups = st.builds(
    lambda bits, symmetric, count: WeightFormat(bits, None, symmetric, neuron_groups=count),
    st.sampled_from(BITS), st.booleans(), st.integers(1, 24),
)  # fmt: skip
integers = st.one_of(grouped, neuron_groups)
normal_floats = st.builds(WeightFormat, st.sampled_from(NORMAL_FLOAT_BITS), groups, st.just(False), st.just("nf"))
microscaled = st.sampled_from([WeightFormat(4, block, kind=kind) for kind, block in BLOCKS.items()])
n_of_m = st.integers(2, 16).flatmap(lambda m: st.integers(1, m - 1).map(lambda n: f"{n}:{m}"))
patterns = st.one_of(n_of_m, st.integers(1, 99).map("{}%".format))
sparsities = st.builds(Sparsity, patterns)
criteria = st.sampled_from(get_args(Criterion))
activations = st.builds(ActivationFormat, st.sampled_from(ACTIVATION_BITS), st.booleans())


@st.composite
def any_schemes(draw):
    """A scheme that changes something."""
    weight = draw(st.one_of(st.none(), integers, normal_floats, microscaled))
    sparsity = draw(st.one_of(st.none(), sparsities))
    roundings = ["rtn"]
    if weight is not None and weight.kind == "int":
        roundings += ["mse", "hqq", "gptq"]
        roundings += ["signround"] * (weight.neuron_groups is None)
        roundings += ["sawb"] * (weight.symmetric and weight.bits in SAWB_BITS)
    rounding = draw(st.sampled_from(roundings))
    kinds = ["eora", "svd"]
    if weight is not None and sparsity is None and rounding not in ("gptq", "signround"):
        kinds.append("lq")
    low_rank = draw(st.one_of(st.none(), st.builds(LowRank, st.integers(1, 12), st.sampled_from(FACTOR_BITS), st.sampled_from(kinds))))
    activation = None if weight is None else draw(st.one_of(st.none(), activations))
    scheme = Scheme(weight, rounding, sparsity, low_rank, activation, "magnitude" if sparsity is None else draw(criteria))
    return Scheme(WeightFormat(4)) if scheme == KEEP else scheme
