from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods import compress, dequantize, quantize
from paredown.methods.clip_search import shares
from paredown.specs import BITS, GROUP_SIZES, KEEP, Scheme, WeightFormat
from reference.quantization import quantize_group, squared_error

FORMATS = [
    pytest.param(WeightFormat(bits, group, symmetric), id=f"int{bits}{'' if group is None else f'g{group}'}{'sym' * symmetric}")
    for bits in BITS
    for group in (*GROUP_SIZES, None)
    for symmetric in (True, False)
]


def weights(seed: int = 0, shape: tuple[int, int] = (6, 256)) -> torch.Tensor:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    weight[0] = weight[0].abs()  # a range that does not straddle zero
    weight[1] = -weight[1].abs()
    weight[2, 0] = 25.0  # an outlier
    return weight


@pytest.mark.parametrize("format", FORMATS)
def test_codes_are_those_of_the_slow_loop(format):
    weight = weights()
    quantized = quantize(weight, format)
    size = format.group_size or weight.shape[1]
    for row in range(weight.shape[0]):
        for group in range(weight.shape[1] // size):
            part = slice(group * size, (group + 1) * size)
            codes, scale, zero = quantize_group(weight[row, part].tolist(), format.bits, format.symmetric)
            assert quantized.codes[row, part].tolist() == codes
            assert quantized.scales[row, group].item() == scale
            if quantized.zero_points is not None:
                assert quantized.zero_points[row, group].item() == zero
    assert (quantized.zero_points is None) == format.symmetric
    assert quantized.scales.shape == (6, 256 // size)
    assert quantized.scales.dtype is torch.float16


@pytest.mark.parametrize("format", FORMATS)
def test_no_error_above_half_a_step(format):
    weight = weights(1)
    quantized = quantize(weight, format)
    step = quantized.scales.float().repeat_interleave(256 // quantized.scales.shape[1], dim=1)
    # rounding the scale to float16 and the zero point to a whole number shortens the range by a little at each end
    slack = 1 / 2 if format.symmetric else 1
    room = slack * step + 2**-10 * weight.abs()
    assert ((dequantize(quantized) - weight).abs() <= room).all()


@pytest.mark.parametrize("format", FORMATS)
def test_a_searched_range_is_never_worse(format):
    weight = weights(2)
    size = format.group_size or 256

    def errors(solver):
        difference = dequantize(quantize(weight, format, solver)).double() - weight
        return difference.square().reshape(6, -1, size).sum(-1)

    assert (errors("mse") <= errors("rtn")).all()
    if format.bits <= 4:
        assert errors("mse").sum() < errors("rtn").sum()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_searched_range_is_better_than_any_other_of_the_grid(bits):
    weight = weights(3, (3, 16))
    quantized = quantize(weight, WeightFormat(bits, 16, symmetric=True), "mse")
    middle = 2 ** (bits - 1)
    assert (quantized.scales < 0).any()  # a longer side above zero is mirrored
    for row in range(3):
        values = weight[row].tolist()
        found = squared_error(values, quantized.codes[row].tolist(), quantized.scales[row, 0].item(), middle)
        for share in shares(bits):
            for sign in (1, -1):
                scale = sign * float(torch.tensor(max(map(abs, values)) * share / (middle - 0.5)).half())
                codes = [min(max(round(value / scale) + middle, 0), 2 * middle - 1) for value in values]
                assert found <= squared_error(values, codes, scale, middle) * (1 + 1e-6)


def test_a_mirrored_grid_makes_up_for_the_missing_zero_point():
    weight = weights(9, (64, 256))
    symmetric, own = (dequantize(quantize(weight, WeightFormat(2, 64, kind), "mse")).sub(weight).square().sum() for kind in (True, False))
    assert symmetric < 1.1 * own


@pytest.mark.parametrize("format", [WeightFormat(2, 16), WeightFormat(4, None), WeightFormat(8, 32, symmetric=True)], ids=str)
@pytest.mark.parametrize("solver", ["rtn", "mse"])
def test_what_lies_on_the_grid_comes_back_exactly(format, solver):
    once = dequantize(quantize(weights(4), format, solver))
    assert torch.equal(dequantize(quantize(once, format)), once) or format.symmetric
    # with the scale of the file, codes are found again, whatever the solver
    again = quantize(weights(4), format, solver)
    assert torch.equal(dequantize(again), once)


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("solver", ["rtn", "mse"])
@pytest.mark.parametrize("bits", BITS)
class TestOddGroups:
    def quantized(self, weight, bits, symmetric, solver):
        quantized = quantize(weight, WeightFormat(bits, None, symmetric), solver)
        assert torch.isfinite(quantized.scales).all()
        assert (quantized.scales != 0).all()
        assert torch.isfinite(dequantize(quantized)).all()
        return quantized

    def test_zeros_stay_zeros(self, bits, symmetric, solver):
        quantized = self.quantized(torch.zeros(2, 8), bits, symmetric, solver)
        assert torch.equal(dequantize(quantized), torch.zeros(2, 8))
        assert (quantized.scales == 1).all()

    def test_zero_among_others_stays_zero(self, bits, symmetric, solver):
        weight = torch.tensor([[0.0, 0.3, 0.9, 1.7], [0.0, -0.3, -0.9, 0.4]])
        assert (dequantize(self.quantized(weight, bits, symmetric, solver))[:, 0] == 0).all()

    @pytest.mark.parametrize("value", [0.37, -0.37])
    def test_a_constant_group_keeps_its_value(self, bits, symmetric, solver, value):
        back = dequantize(self.quantized(torch.full((1, 8), value), bits, symmetric, solver))
        tolerance = abs(value) * (2**-10 + (symmetric / (2**bits - 1)))
        assert ((back - value).abs() <= tolerance).all()

    def test_tiny_weights_are_not_clipped(self, bits, symmetric, solver):
        weight = weights(5, (3, 32)).mul(1e-7)
        quantized = self.quantized(weight, bits, symmetric, solver)
        if solver == "rtn":
            assert ((dequantize(quantized) - weight).abs() <= quantized.scales.float() * 1.001).all()

    def test_weights_beyond_float16_saturate(self, bits, symmetric, solver):
        weight = torch.tensor([[3e38, -3e38, 1.0, 0.0]])
        quantized = self.quantized(weight, bits, symmetric, solver)
        assert abs(quantized.scales.item()) == torch.finfo(torch.float16).max
        assert dequantize(quantized)[0, 0] > 0
        assert dequantize(quantized)[0, 1] <= 0


@given(
    st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=8, max_size=8),
    st.sampled_from(BITS),
    st.booleans(),
    st.sampled_from(["rtn", "mse"]),
)
def test_finite_weights_never_give_anything_else(values, bits, symmetric, solver):
    quantized = quantize(torch.tensor([values]), WeightFormat(bits, None, symmetric), solver)
    assert torch.isfinite(quantized.scales).all()
    assert (quantized.scales != 0).all()
    assert int(quantized.codes.max()) < 2**bits
    assert torch.isfinite(dequantize(quantized)).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(value):
    weight = weights()
    weight[3, 17] = value
    with pytest.raises(ParedownError, match="NaN or infinite"):
        quantize(weight, WeightFormat(4, 64))


def test_a_group_size_that_does_not_divide_is_refused():
    with pytest.raises(ParedownError, match="group size 64 does not divide the 96 inputs"):
        quantize(torch.ones(2, 96), WeightFormat(4, 64))


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 4)])
def test_what_is_no_matrix_is_refused(shape):
    with pytest.raises(ParedownError, match=r"expected a weight of shape \[out, in\]"):
        quantize(torch.ones(shape), WeightFormat(4, None))


def test_long_weights_are_done_in_parts_with_the_same_result():
    weight = weights(6, (700, 512))
    whole, part = quantize(weight, WeightFormat(4, 64)), quantize(weight[690:], WeightFormat(4, 64))
    assert torch.equal(whole.codes[690:], part.codes)
    assert torch.equal(dequantize(whole)[690:], dequantize(part))


def test_half_precision_is_read_exactly():
    weight = weights(7).to(torch.bfloat16)
    assert torch.equal(quantize(weight, WeightFormat(4, 64)).codes, quantize(weight.float(), WeightFormat(4, 64)).codes)


def test_the_door_follows_the_scheme():
    weight = weights(8)
    assert torch.equal(compress(weight, Scheme.parse("int3g32-mse")).numbers.codes, quantize(weight, WeightFormat(3, 32), "mse").codes)
    with pytest.raises(ParedownError, match="keeps the weight"):
        compress(weight, KEEP)
