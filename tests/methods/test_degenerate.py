"""Every family of the grammar on weights, inputs and gradients that say little or nothing: finite, zeros exact, and said."""

from __future__ import annotations

import pytest
import torch

from paredown.errors import ParedownError
from paredown.methods import compress, dequantize
from paredown.methods.criteria import pattern_of
from paredown.methods.masks import follows
from paredown.sizes import fit
from paredown.specs import LayerRef, Scheme
from seen_layers import seen
from some_schemes import FAMILIES

OUT, IN = 12, 64
LAYER = LayerRef("layer", "linear", "fc1", "", (OUT, IN), "float32")
ALL = [Scheme.parse(text) for text in FAMILIES]
USE_THE_MOMENT = [s for s in ALL if s.rounding in ("gptq", "signround") or s.criterion in ("wanda", "sparsegpt", "kfac") or (s.low_rank and s.low_rank.kind == "eora")]  # fmt: skip
USE_GRADIENTS = [s for s in ALL if s.needs_gradients]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(tokens=200):
    return noise(tokens, IN, seed=1) @ noise(IN, IN, seed=2)


def compressed(weight, scheme, statistics):
    """The candidate's weight, after what holds for all."""
    made = compress(weight, fit(scheme, LAYER)[0], statistics)
    dense = dequantize(made)
    assert dense.isfinite().all()
    if made.mask is not None:
        assert follows(made.mask, pattern_of(scheme.sparsity))
        if made.factors is None:
            assert not dense[~made.mask].any()
    if made.round_inputs is not None:
        assert made.round_inputs(inputs(3)).isfinite().all()
    return made, dense


@pytest.mark.parametrize("scheme", ALL, ids=str)
class TestEveryFamily:
    def test_fewer_tokens_than_inputs(self, scheme):
        made, _ = compressed(noise(OUT, IN), scheme, seen(OUT, IN, tokens=5))
        assert ("5 tokens for 64 inputs" in made.note) == (scheme in USE_THE_MOMENT)

    def test_inputs_that_are_never_active(self, scheme):
        made, _ = compressed(noise(OUT, IN), scheme, seen(OUT, IN, x=torch.zeros(200, IN)))
        assert ("no input is ever active" in made.note) == (scheme in USE_THE_MOMENT)

    def test_dead_inputs(self, scheme):
        x = inputs()
        x[:, ::4] = 0
        made, _ = compressed(noise(OUT, IN), scheme, seen(OUT, IN, x=x))
        assert ("16 inputs are never active" in made.note or "16 dead inputs" in made.note) == (scheme in USE_THE_MOMENT)

    def test_gradients_that_are_zero(self, scheme):
        made, _ = compressed(noise(OUT, IN), scheme, seen(OUT, IN, x=inputs(), gradients=torch.zeros(200, OUT)))
        assert ("no gradient reaches the layer" in made.note) == (scheme in USE_GRADIENTS)

    def test_constant_rows(self, scheme):
        weight = noise(OUT, 1).expand(OUT, IN).clone()
        weight[3] = 0
        _, dense = compressed(weight, scheme, seen(OUT, IN, x=inputs()))
        assert dense[3].norm() <= 0.01 * weight.norm()  # K-FAC lets rows make up for one another

    def test_a_weight_of_zeros(self, scheme):
        made, dense = compressed(torch.zeros(OUT, IN), scheme, seen(OUT, IN, x=inputs()))
        assert not dense.any()
        assert "all weights are zero" in made.note

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, scheme, dtype):
        weight = noise(OUT, IN).to(dtype)
        statistics = seen(OUT, IN, x=inputs())
        _, dense = compressed(weight, scheme, statistics)
        _, wide = compressed(weight.float(), scheme, statistics)
        assert torch.equal(dense, wide.to(dtype).float() if scheme.weight is None and scheme.low_rank is None else wide)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("bad", [float("inf"), float("nan")])
    def test_what_is_not_finite_is_refused(self, scheme, dtype, bad):
        weight = noise(OUT, IN).to(dtype)
        weight[1, 2] = bad
        with pytest.raises(ParedownError, match="the weight holds NaN or infinite values"):
            compress(weight, fit(scheme, LAYER)[0], seen(OUT, IN, x=inputs()))

    @pytest.mark.parametrize("size", [1e-30, 1e30])
    def test_absurd_sizes(self, scheme, size):
        refused = ""
        try:
            compressed(noise(OUT, IN) * size, scheme, seen(OUT, IN, x=inputs()))
        except ParedownError as error:
            refused = str(error)
        assert not refused or "left the range of float32" in refused


@pytest.mark.parametrize("scheme", USE_THE_MOMENT, ids=str)
def test_inputs_that_are_not_finite_are_refused(scheme):
    x = inputs()
    x[0, 0] = torch.inf
    with pytest.raises(ParedownError, match="NaN or infinite"):
        compress(noise(OUT, IN), scheme, seen(OUT, IN, x=x))
