"""Profiles of weights and inputs against numpy, and the rule of the outlier channels against a loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.calibration import Captured, Part
from paredown.errors import ParedownError
from paredown.profiling import BINS, REACH, profile
from paredown.specs import Histogram, LayerProfile, LayerRef, from_json, to_json

TOKENS, WIDTH = 60, 24


def seen(*inputs: torch.Tensor, mask: torch.Tensor | None = None, kind: str = "dense") -> Captured:
    layer = LayerRef("layer", "linear", "q", "block", (8, inputs[0].shape[-1]), "float32")
    gradients = [torch.zeros(*each.shape[:2], 8, dtype=each.dtype) for each in inputs]
    parts = [(Part(kind, each, gradient, mask),) for each, gradient in zip(inputs, gradients, strict=True)]  # pyright: ignore[reportArgumentType]
    return Captured(layer, tuple(parts))


def activations(seed: int = 0, **scaled: float) -> torch.Tensor:
    """Normal inputs [2, 30, 24] in float64; channel ``cK`` times a factor."""
    made = torch.randn(2, TOKENS // 2, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for channel, factor in scaled.items():
        made[..., int(channel[1:])] *= factor
    return made


def weight(seed: int = 1) -> torch.Tensor:
    return torch.randn(8, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def numpys(values: np.ndarray, like: Histogram) -> tuple[int, ...]:
    return tuple(np.histogram(values, len(like.counts), (like.low, like.high))[0].tolist())


def test_moments_and_histogram_of_the_weight_are_numpys() -> None:
    found, values = profile("layer", weight()), weight().numpy().ravel()
    assert found.weight_sd == pytest.approx(values.std())
    assert found.weight_max == np.abs(values).max()
    z = (values - values.mean()) / values.std()
    assert found.weight_kurtosis == pytest.approx((z**4).mean() - 3)
    assert found.weights.counts == numpys(values, found.weights)
    assert found.weights.edges == pytest.approx(np.histogram_bin_edges(values, BINS, (found.weights.low, found.weights.high)))
    assert found.inputs is None


def test_inputs_are_counted_as_numpy_counts_them_over_real_tokens_and_all_batches() -> None:
    first, second = activations(0, c3=9.0), activations(1, c3=9.0)
    mask = torch.rand(2, TOKENS // 2, generator=torch.Generator().manual_seed(2)) > 0.3
    found = profile("layer", weight(), seen(first, second, mask=mask)).inputs
    assert found is not None
    rows = torch.cat([first[mask], second[mask]]).numpy()
    assert (found.tokens, found.channels) == rows.shape
    assert found.outlier_channels == (3,)
    assert found.outliers is not None
    assert found.outliers.counts == numpys(rows[:, 3], found.outliers)
    assert found.ordinary.counts == numpys(np.delete(rows, 3, 1), found.ordinary)
    assert found.ordinary.total + found.outliers.total == rows.size
    energy = (rows**2).sum(0)
    assert found.outlier_share == pytest.approx(energy[3] / energy.sum())
    assert found.top_channels == tuple(np.argsort(-energy)[:8].tolist())
    assert found.top_shares == pytest.approx(np.sort(energy)[::-1][:8] / energy.sum())
    assert found.rms == pytest.approx(np.sqrt((rows**2).mean()))
    assert found.median_rms == pytest.approx(np.sort(np.sqrt((rows**2).mean(0)))[WIDTH // 2 - 1])  # torch takes the lower of two
    assert found.largest == np.abs(rows).max()


def test_what_is_far_beyond_the_other_channels_is_counted_and_not_binned() -> None:
    rows = activations(0, c5=500.0)
    found = profile("layer", weight(), seen(rows)).inputs
    assert found is not None
    assert found.outliers is not None
    limit = REACH * found.median_rms
    assert found.outliers.high == pytest.approx(limit)
    assert found.outliers.below == int((rows[..., 5] < -limit).sum())
    assert found.outliers.above == int((rows[..., 5] > limit).sum())
    assert found.outliers.total == TOKENS
    assert found.largest > limit


@given(st.integers(0, 1000), st.floats(1, 60), st.floats(0.02, 0.12))
@settings(max_examples=40, deadline=None)
def test_a_channel_is_an_outlier_by_the_two_thresholds_of_llm_int8(seed: int, factor: float, often: float) -> None:
    rows = activations(seed)
    loud = torch.rand(rows.shape[:2], generator=torch.Generator().manual_seed(seed)) < often
    rows[..., 7] = torch.where(loud, factor, 0.1 * rows[..., 7])
    found = profile("layer", weight(), seen(rows)).inputs
    assert found is not None
    table = rows.flatten(0, 1).numpy()
    expected = [c for c in range(WIDTH) if sum(abs(x) >= 6 * found.median_rms for x in table[:, c]) >= 0.06 * TOKENS]
    assert list(found.outlier_channels) == expected


def test_counts_do_not_depend_on_how_the_tokens_are_batched_nor_shares_on_the_scale() -> None:
    rows = activations(3, c2=8.0)
    whole = profile("layer", weight(), seen(rows)).inputs
    halves = profile("layer", weight(), seen(rows[:1], rows[1:])).inputs
    scaled = profile("layer", weight(), seen(8 * rows)).inputs  # a power of two rounds nothing
    assert whole is not None
    assert halves is not None
    assert scaled is not None
    assert (halves.ordinary.counts, halves.outlier_channels) == (whole.ordinary.counts, whole.outlier_channels)
    assert (scaled.ordinary.counts, scaled.outlier_channels) == (whole.ordinary.counts, whole.outlier_channels)
    assert scaled.outlier_share == pytest.approx(whole.outlier_share)


def test_float32_counts_every_value_once() -> None:
    rows = activations(4).float()
    found = profile("layer", weight().float(), seen(rows)).inputs
    assert found is not None
    assert found.ordinary.total == rows.numel()
    near = np.array(numpys(rows.double().numpy().ravel(), found.ordinary)) - np.array(found.ordinary.counts)
    assert np.abs(near).sum() <= 4  # a value on an edge may fall to its other side


def test_a_layer_that_looks_rows_up_has_no_profile_of_its_inputs() -> None:
    assert profile("layer", weight(), seen(torch.zeros(2, 3, 1), kind="lookup")).inputs is None


def test_constant_and_zero_weights_and_inputs_have_finite_profiles() -> None:
    constant = profile("layer", torch.full((4, 4), 0.3), seen(torch.zeros(2, 3, 4)))
    assert (constant.weight_kurtosis, constant.weight_sd) == (0, pytest.approx(0, abs=1e-7))
    assert constant.weights.total == 16
    assert constant.inputs is not None
    assert (constant.inputs.outlier_channels, constant.inputs.outlier_share, constant.inputs.largest) == ((), 0, 0)
    assert constant.inputs.ordinary.total == 24
    assert profile("layer", torch.zeros(4, 4)).weights.total == 16


def test_dead_channels_make_no_outliers_of_the_living_half() -> None:
    """With most channels at zero the median is zero, and nothing is an outlier against that."""
    rows = torch.zeros(2, 10, 8)
    rows[..., :3] = 1
    found = profile("layer", torch.ones(2, 8), seen(rows)).inputs
    assert found is not None
    assert found.outlier_channels == ()
    assert found.top_shares[:3] == pytest.approx((1 / 3,) * 3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    broken = weight()
    broken[0, 0] = bad
    with pytest.raises(ParedownError, match="the weights of layer are NaN or infinite; look for"):
        profile("layer", broken)
    rows = activations()
    rows[0, 0, 0] = bad
    with pytest.raises(ParedownError, match="the inputs of layer are NaN or infinite"):
        profile("layer", weight(), seen(rows))


def test_a_profile_travels_as_json() -> None:
    found = profile("layer", weight(), seen(activations(0, c3=9.0)))
    assert from_json(LayerProfile, to_json(found)) == found


def test_a_histogram_without_width_is_refused() -> None:
    with pytest.raises(ParedownError, match="finite ends and a bin"):
        Histogram(1.0, 1.0, (1,))
