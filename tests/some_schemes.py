"""Schemes of the whole grammar, for Hypothesis."""

from hypothesis import strategies as st

from paredown.specs import BITS, GROUP_SIZES, KEEP, ActivationFormat, LowRank, Scheme, Sparsity, WeightFormat
from paredown.specs.schemes import ACTIVATION_BITS, FACTOR_BITS, NORMAL_FLOAT_BITS

groups = st.sampled_from([*GROUP_SIZES, None])
integers = st.builds(WeightFormat, st.sampled_from(BITS), groups, st.booleans())
normal_floats = st.builds(WeightFormat, st.sampled_from(NORMAL_FLOAT_BITS), groups, st.just(False), st.just("nf"))
n_of_m = st.integers(2, 16).flatmap(lambda m: st.integers(1, m - 1).map(lambda n: f"{n}:{m}"))
sparsities = st.builds(Sparsity, st.one_of(n_of_m, st.integers(1, 99).map("{}%".format)))


@st.composite
def any_schemes(draw):
    """A scheme that changes something."""
    weight = draw(st.one_of(st.none(), integers, normal_floats))
    sparsity = draw(st.one_of(st.none(), sparsities))
    low_rank = draw(
        st.one_of(st.none(), st.builds(LowRank, st.integers(1, 12), st.sampled_from(FACTOR_BITS), st.sampled_from(["eora", "svd"])))
    )
    solvers = ["rtn"]
    if weight is not None and weight.kind == "int":
        solvers += ["mse", "gptq"]
    if sparsity is not None:
        solvers += ["wanda", "sparsegpt"]
    activation = None if weight is None else draw(st.one_of(st.none(), st.builds(ActivationFormat, st.sampled_from(ACTIVATION_BITS))))
    scheme = Scheme(weight, draw(st.sampled_from(solvers)), sparsity, low_rank, activation)
    return Scheme(WeightFormat(4)) if scheme == KEEP else scheme
