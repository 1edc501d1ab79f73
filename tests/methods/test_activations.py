from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods.activations import PERCENTILES, Range, pact, percentile_ranges, quantize_per_token, quantize_static, static_range
from reference.quantization import quantize_group


def percentile_range(values, percentile):
    [found] = percentile_ranges(values, [percentile])
    return found


def activations(tokens=50, width=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, width, generator=generator) * torch.rand(tokens, 1, generator=generator).exp() + 0.3


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=60), st.sampled_from([60.0, 90.0, 99.0, 100.0]))
def test_a_range_leaves_no_more_outside_than_its_percentiles_and_holds_zero(values, percentile):
    found = percentile_range(torch.tensor(values), percentile)
    allowed = len(values) * (1 - percentile / 100) + 1e-9
    assert sum(value > found.high for value in values) <= allowed
    assert sum(value < found.low for value in values) <= allowed
    assert found.low <= 0 <= found.high
    if percentile == 100:
        assert (found.low, found.high) == (min(*values, 0.0), max(*values, 0.0))


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=60), st.integers(1, 20), st.sampled_from([60.0, 99.0, 100.0]))
def test_parts_have_the_range_of_the_whole(values, size, percentile):
    whole = torch.tensor(values)
    assert percentile_range(whole.split(size), percentile) == percentile_range(whole, percentile)
    for bits in (4, 8):
        assert static_range(whole.split(size), bits) in percentile_ranges(whole, PERCENTILES)


def test_percentiles_read_together_are_those_read_alone():
    values = activations(2000)
    assert percentile_ranges(values, PERCENTILES) == [percentile_range(values, percentile) for percentile in PERCENTILES]


@given(st.sampled_from([2, 4, 8]), st.floats(0.0, 0.01), st.floats(0.0, 3.0), st.integers(0, 99))
def test_a_static_range_errs_no_more_than_that_of_any_percentile(bits, share, size, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(4000, generator=generator)
    values[: int(share * 4000)] *= 10**size

    def squared_error(range):
        return float((quantize_static(values, range, bits) - values).double().square().sum())

    least = min(squared_error(percentile_range(values, percentile)) for percentile in PERCENTILES)
    assert squared_error(static_range(values.split(900), bits)) == pytest.approx(least, rel=1e-9)


def test_outliers_that_carry_the_error_are_kept_and_with_few_bits_the_tail_is_clipped():
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    assert static_range(values, 4).high < values.max()
    values[0] = 1e3
    assert static_range(values, 8).high == 1e3


def test_outliers_are_clipped():
    values = activations(1000)
    values[0, 0] = 1e4
    assert percentile_range(values, 99.9).high < 100
    assert percentile_range(values, 100).high == 1e4


@pytest.mark.parametrize("bits", [8, 4])
def test_a_static_range_gives_the_values_of_the_slow_loop(bits):
    values = activations()
    ends = percentile_range(values, 100)
    codes, scale, zero = quantize_group(values.flatten().tolist(), bits, symmetric=False)
    slow = torch.tensor([(code - zero) * scale for code in codes]).view_as(values)
    assert torch.allclose(quantize_static(values, ends, bits), slow)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_tokens_own_range_gives_the_values_of_the_slow_loop(bits, symmetric):
    values = activations()
    found = quantize_per_token(values.view(5, 10, 24), bits, symmetric=symmetric).view(50, 24)
    for row, back in zip(values.tolist(), found, strict=True):
        codes, scale, zero = quantize_group(row, bits, symmetric)
        assert torch.allclose(back, torch.tensor([(code - zero) * scale for code in codes]))


def test_tokens_do_not_see_one_another_and_err_less_than_with_one_range():
    values = activations()
    assert torch.equal(quantize_per_token(values, 4)[7], quantize_per_token(values[7:8], 4)[0])
    one = quantize_static(values, percentile_range(values, 100), 4)
    assert (quantize_per_token(values, 4, symmetric=False) - values).square().sum() < (one - values).square().sum()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_stays(dtype):
    values = activations().to(dtype)
    assert quantize_per_token(values, 8).dtype is dtype
    assert quantize_static(values, Range(-1.0, 1.0), 8).dtype is dtype


def test_odd_activations():
    zeros = torch.zeros(3, 8)
    assert torch.equal(quantize_per_token(zeros, 4), zeros)
    assert torch.equal(quantize_static(zeros, static_range(zeros, 4), 4), zeros)
    broken = torch.tensor([[1.0, torch.inf], [1.0, 2.0]], dtype=torch.float16)
    found = quantize_per_token(broken, 8)
    assert torch.equal(found[0], broken[0])
    assert torch.allclose(found[1], broken[1], rtol=0.01)
    assert quantize_static(broken, Range(-1.0, 3.0), 8)[0, 1] == pytest.approx(3, rel=0.01)


def surrogate(values, low, high, steps, offset):
    """What PACT+ differentiates: the rounding error is frozen, the clip moves."""
    scale = (high - low) / steps
    return (torch.clamp((values - low) / scale, 0, steps) + offset) * scale + low


@pytest.mark.parametrize("plus", [True, False], ids=["pact+", "pact"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_gradients_are_finite_differences_of_the_surrogate(bits, plus):
    generator = torch.Generator().manual_seed(bits)
    values = torch.randn(200, generator=generator, dtype=torch.float64) * 2
    upstream = torch.randn(200, generator=generator, dtype=torch.float64)
    low, high = torch.tensor(-1.7, dtype=torch.float64), torch.tensor(2.3, dtype=torch.float64)
    steps = 2**bits - 1
    place = ((values - low) / (high - low) * steps).clamp(0, steps)
    offset = place.round() - place

    leaves = [tensor.clone().requires_grad_() for tensor in (values, low, high)]
    output = pact(*leaves, bits, plus=plus)
    assert torch.allclose(output, surrogate(values, low, high, steps, offset))
    assert len(output.unique()) <= 2**bits
    found = torch.autograd.grad((output * upstream).sum(), leaves)

    def difference(which, step=1e-6):
        ends = []
        for sign in (1, -1):
            moved = [values, low, high]
            moved[which] = moved[which] + sign * step
            # without the plus, an end moves nothing but what it clips
            inside = (values > low) & (values < high)
            result = surrogate(*moved, steps, offset)
            ends.append(torch.where(inside, values, result) if which and not plus else result)
        return (ends[0] - ends[1]) * upstream / (2 * step)

    assert torch.allclose(found[0], difference(0), atol=1e-6)
    for which in (1, 2):
        assert torch.allclose(found[which], difference(which).sum(), atol=1e-5)


def test_training_the_ends_finds_a_better_range():
    values = torch.randn(4000, generator=torch.Generator().manual_seed(1))
    low, high = torch.tensor(-6.0, requires_grad=True), torch.tensor(6.0, requires_grad=True)
    optimizer = torch.optim.Adam([low, high], lr=0.05)
    errors = []
    for _ in range(150):
        error = (pact(values, low, high, 3) - values).square().mean()
        errors.append(error.item())
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    best = min((pact(values, -end, end, 3) - values).square().mean().item() for end in torch.arange(1.0, 4.0, 0.05))
    assert errors[-1] < 1.05 * best < 0.3 * errors[0]


def test_mistakes_are_refused():
    with pytest.raises(ParedownError, match="above 50 and at most 100"):
        percentile_range(activations(), 30)
    for broken in (torch.empty(0), torch.tensor([1.0, torch.inf])):
        with pytest.raises(ParedownError, match="finite activations"):
            static_range(broken, 8)
    with pytest.raises(ParedownError, match="a range holds zero"):
        Range(0.5, 1.0)
    with pytest.raises(ParedownError, match="learned range is empty"):
        pact(activations(), torch.tensor(1.0), torch.tensor(-1.0), 4)
    with pytest.raises(ParedownError, match="2 to 8 bits"):
        quantize_per_token(activations(), 1)
