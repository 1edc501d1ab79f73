import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown import sensitivity
from paredown.calibration import Captured, Part, every_other
from paredown.curvature import ratio
from paredown.errors import ParedownError
from paredown.methods import compress, dequantize
from paredown.methods.activations import quantize_per_token, quantize_static, static_range
from paredown.methods.criteria import FITS_GRADIENTS
from paredown.sensitivity import price, shrunk, statistics_of
from paredown.sizes import entry_bytes, fit, layer_bytes, layer_tensors
from paredown.specs import KEEP, LayerRef, Scheme
from some_schemes import FAMILIES

LAYER = LayerRef("layer", "linear", "q", "block", (8, 64), "float32")
SCHEMES = [Scheme.parse(f"int{bits}g32") for bits in (2, 4, 8)]


def captured(samples=40, seed=0, scale=1.0, layer=LAYER):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, 3, layer.shape[1], generator=generator)
    gradients = scale * torch.randn(samples, 3, layer.shape[0], generator=generator)
    return Captured(layer, ((Part("dense", inputs, gradients, None),),))


def weight(seed=1):
    return torch.randn(LAYER.shape, generator=torch.Generator().manual_seed(seed))


def priced(seen, units=None, schemes=SCHEMES, layer=LAYER):
    samples = sum(len(parts[0].inputs) for parts in seen.batches)
    return price(layer, weight(), seen, torch.ones(samples) if units is None else units, schemes)


def test_candidates_come_with_rising_bytes_and_falling_damage():
    candidates = priced(captured())
    keep, *others = candidates
    assert keep.scheme == KEEP
    assert (keep.loss_increase, keep.output_error) == (0, 0)
    assert [c.bytes for c in others] == sorted(c.bytes for c in others)
    for name in ("loss_increase", "loss_increase_sd", "output_error"):
        values = [getattr(c, name) for c in others]
        assert values == sorted(values, reverse=True)
        assert min(values) > 0


def test_prediction_is_the_quadratic_form_of_the_rounding_error():
    """Against float64 sums over samples, from the definition."""
    seen = captured()
    candidates = priced(seen)
    parts = seen.batches[0][0]
    per_sample = (parts.gradients.double().transpose(1, 2) @ parts.inputs.double()).flatten(1)
    for candidate in candidates[1:]:
        error = (dequantize(compress(weight(), candidate.scheme)) - weight()).double().flatten()
        full = 0.5 * (per_sample @ error).square()
        diagonal = 0.5 * (per_sample.square() @ error.square())
        expected, deviation = shrunk(diagonal[:, None], full[:, None], torch.ones(40))
        assert candidate.loss_increase == pytest.approx(float(expected), rel=1e-4)
        assert candidate.loss_increase_sd == pytest.approx(float(deviation), rel=1e-3)
        assert candidate.weight_error == pytest.approx(float(error.square().sum()), rel=1e-5)


def test_units_scale_the_loss_per_unit():
    once = priced(captured())
    thrice = priced(captured(), units=torch.full((40,), 3))
    for a, b in zip(once[1:], thrice[1:], strict=True):
        assert a.loss_increase == pytest.approx(3 * b.loss_increase)


def test_a_group_size_that_does_not_divide_is_said_in_the_candidate():
    _, candidate = priced(captured(), schemes=[Scheme.parse("int4g128")])
    assert str(candidate.effective) == "int4g64"
    assert "128" in candidate.note


def test_every_family_is_priced_by_what_it_really_changes():
    """Against float64 sums over samples, from the definition."""
    seen, kept = captured(), []
    schemes = [fit(scheme, LAYER)[0] for scheme in map(Scheme.parse, FAMILIES) if scheme.activation is None]
    _, *candidates = price(LAYER, weight(), seen, torch.ones(40), schemes, kept.append)
    parts = seen.batches[0][0]
    x = parts.inputs.double().flatten(0, 1)
    made = {one.scheme: one for one in kept}
    assert set(made) == {scheme for scheme in schemes if scheme.needs_calibration}
    for candidate in candidates:
        found = made.get(candidate.effective) or compress(weight(), candidate.effective)
        error = (dequantize(found) - weight()).double()
        outputs = float((x @ error.T).square().sum() / (x @ weight().double().T).square().sum())
        assert candidate.output_error == pytest.approx(outputs, rel=1e-4)
        assert candidate.weight_error == pytest.approx(float(error.square().sum()), rel=1e-5)
        assert candidate.loss_increase > 0
        assert candidate.bytes == layer_bytes(LAYER, candidate.scheme)


@pytest.mark.parametrize("text", ["int4g32a4", "int4g32a4static"])
def test_rounded_inputs_are_priced_by_what_they_do_to_the_outputs(text):
    """Against float64 sums over samples, from the definition."""
    seen, scheme = captured(), Scheme.parse(text)
    _, candidate, weights_alone = priced(seen, schemes=[scheme, Scheme.parse("int4g32")])
    part = seen.batches[0][0]
    compressed = dequantize(compress(weight(), Scheme.parse("int4g32"))).double()
    whole = (
        quantize_static(part.inputs, static_range(part.inputs, 4), 4) if scheme.activation.static else quantize_per_token(part.inputs, 4)
    )
    x, rounded = part.inputs.double(), whole.double()
    change = rounded @ compressed.T - x @ weight().double().T
    full = 0.5 * (part.gradients.double() * change).sum((1, 2)).square()
    per_sample = part.gradients.double().transpose(1, 2) @ x
    diagonal = 0.5 * (per_sample * (compressed - weight().double())).square().sum((1, 2))
    diagonal += 0.5 * ((part.gradients.double() @ compressed) * (rounded - x)).square().sum((1, 2))
    expected, _ = shrunk(diagonal[:, None], full[:, None], torch.ones(40))
    assert candidate.loss_increase == pytest.approx(float(expected), rel=1e-4)
    outputs = (x @ weight().double().T).square().sum()
    assert candidate.output_error == pytest.approx(float(change.square().sum() / outputs), rel=1e-4)
    assert candidate.output_error > weights_alone.output_error
    stored = sum(tensor.bytes + entry_bytes(tensor) for tensor in layer_tensors(LAYER, scheme) if "input" in tensor.name)
    assert candidate.bytes == weights_alone.bytes + stored
    assert (stored > 0) == scheme.activation.static


def test_errors_that_do_not_fit_into_memory_together_are_priced_alike(monkeypatch):
    schemes = [Scheme.parse(text) for text in ("int4g32", "2:4-mfac", "int3g32+2:4-mfac", "int2g32a8", "int4g32-gptq+2:4")]
    together = priced(captured(), schemes=schemes)
    monkeypatch.setattr(sensitivity, "ERROR_BYTES", 1)
    for one, other in zip(together, priced(captured(), schemes=schemes), strict=True):
        assert one.scheme == other.scheme
        assert one.loss_increase == pytest.approx(other.loss_increase, rel=1e-5)
        assert one.output_error == other.output_error


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(0, 99))
def test_statistics_read_in_parts_are_those_of_all_samples(rows, seed):
    seen = captured(samples=6, seed=seed)
    mask = torch.rand(6, 3, generator=torch.Generator().manual_seed(seed)) > 0.3
    mask[:, 0] = True
    [[part]] = seen.batches
    gradients = part.gradients * mask[:, :, None]
    halves = tuple((Part("dense", part.inputs[some], gradients[some], mask[some]),) for some in (slice(4), slice(4, 6)))
    found, x, g = statistics_of(Captured(LAYER, halves)), part.inputs[mask], gradients[mask]
    per_sample = gradients.mT @ part.inputs
    torch.testing.assert_close(found.gradients(8 - rows, 8), per_sample[:, 8 - rows :])
    torch.testing.assert_close(found.fisher(8), per_sample.square().mean(0))
    torch.testing.assert_close(found.outputs, (g.T @ g).double() / len(g))
    assert found.range(8) == static_range(x, 8)


FITTED = [Scheme.parse(text) for text in ("50%-mfac", "2:4-kfac", "int4g32-gptq+2:4-mfac", "int4g32a4static+2:4-mfac")]


def split(seen, sizes):
    """The same samples in several batches."""
    [[part]] = seen.batches
    pieces = zip(part.inputs.split(sizes), part.gradients.split(sizes), strict=True)
    return Captured(LAYER, tuple((Part("dense", inputs, gradients, None),) for inputs, gradients in pieces))


def damage(made, samples):
    """Mean of the full form."""
    [[part]] = samples.batches
    x = part.inputs if made.round_inputs is None else made.round_inputs(part.inputs)
    change = x.double() @ dequantize(made).double().T - part.inputs.double() @ weight().double().T
    return 0.5 * float((part.gradients.double() * change).sum((1, 2)).square().mean())


@pytest.mark.parametrize("scheme", FITTED, ids=str)
def test_a_fit_to_gradients_is_priced_as_fresh_samples_would(scheme):
    """Sixteen times 40 samples; the weight fitted to half of them on 1000 fresh ones, within three standard errors of the mean ratio."""
    ratios, own, really = [], [], []
    for seed in range(16):
        seen, fresh, kept = captured(seed=seed), captured(samples=1000, seed=1000 + seed), []
        _, candidate = price(LAYER, weight(), seen, torch.ones(40), [scheme], kept.append)
        half = compress(weight(), scheme, statistics_of(every_other(seen, 0)))
        ratios.append(candidate.loss_increase / damage(half, fresh))
        own.append(damage(kept[0], seen) / damage(kept[0], fresh))
        really.append(candidate.loss_increase / damage(kept[0], fresh))
    error = statistics.stdev(ratios) / 4
    assert error < 0.1
    assert abs(statistics.mean(ratios) - 1) < 3 * error
    assert statistics.mean(own) < 0.8
    assert abs(statistics.mean(really) - 1) < abs(statistics.mean(own) - 1)


@pytest.mark.parametrize("scheme", FITTED[:3], ids=str)
def test_a_fit_to_gradients_is_priced_on_samples_that_it_did_not_see(scheme):
    """Against float64 sums over samples, from the definition, however the samples come in batches."""
    seen, units, kept = captured(), torch.arange(40) % 3 + 1, []
    _, candidate = price(LAYER, weight(), split(seen, [5, 1, 1, 30, 3]), units, [scheme], kept.append)
    [[part]] = seen.batches
    half = Captured(LAYER, ((Part("dense", part.inputs[::2], part.gradients[::2], None),),))
    error = (dequantize(compress(weight(), scheme, statistics_of(half))) - weight()).double()
    per_sample = (part.gradients.double().mT @ part.inputs.double())[1::2]
    full = 0.5 * (per_sample * error).sum((1, 2)).square()
    diagonal = 0.5 * (per_sample * error).square().sum((1, 2))
    expected, deviation = shrunk(diagonal[:, None], full[:, None], units[1::2])
    assert candidate.loss_increase == pytest.approx(float(expected), rel=1e-3)
    assert candidate.loss_increase_sd == pytest.approx(float(deviation), rel=1e-3)
    [made] = kept
    assert candidate.weight_error == pytest.approx(float((dequantize(made) - weight()).double().square().sum()), rel=1e-5)


def test_other_schemes_are_priced_on_all_samples_bit_for_bit(monkeypatch):
    schemes = [*map(Scheme.parse, FAMILIES), *FITTED]
    crossed = priced(captured(), schemes=schemes)
    monkeypatch.setattr(sensitivity, "FITS_GRADIENTS", ())
    for one, other in zip(crossed, priced(captured(), schemes=schemes), strict=True):
        changed = one.effective.criterion in FITS_GRADIENTS
        assert (one == other) != changed
        assert (one.output_error, one.weight_error) == (other.output_error, other.weight_error)


@pytest.mark.parametrize("scheme", FITTED, ids=str)
def test_too_few_samples_to_set_half_aside_are_said(scheme):
    candidates = [priced(captured(samples=samples), schemes=[scheme])[1] for samples in (3, 4)]
    assert ["priced too low, on the 3 samples" in one.note for one in candidates] == [True, False]
    assert all(math.isfinite(one.loss_increase_sd) for one in candidates)


def test_gptq_is_priced_below_rounding_to_nearest():
    parsed = [Scheme.parse("int3g32"), Scheme.parse("int3g32-gptq")]
    correlated = captured()
    mixing = torch.randn(64, 64, generator=torch.Generator().manual_seed(5)) @ torch.diag(torch.arange(1, 65) ** -1.0)
    inputs = correlated.batches[0][0].inputs @ mixing
    correlated = Captured(LAYER, ((Part("dense", inputs, correlated.batches[0][0].gradients, None),),))
    _, nearest, compensated = priced(correlated, schemes=parsed)
    assert compensated.output_error < nearest.output_error
    assert compensated.loss_increase < nearest.loss_increase


def test_what_a_method_did_about_its_inputs_is_said_in_the_candidate():
    _, candidate = priced(captured(samples=2), schemes=[Scheme.parse("int4g128-gptq")])
    assert "the group size 128 does not divide" in candidate.note
    assert "6 tokens for 64 inputs" in candidate.note


def test_a_layer_that_is_offered_nothing_is_kept():
    candidates = priced(captured(), schemes=[])
    assert [c.scheme for c in candidates] == [KEEP]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_gradients_name_the_layer(bad):
    with pytest.raises(ParedownError, match="calibration gradients of layer are NaN or infinite"):
        priced(captured(scale=bad))


def test_a_layer_without_gradient_costs_nothing_and_is_no_nan():
    candidates = priced(captured(scale=0.0))
    assert all(c.loss_increase == 0 for c in candidates)


def test_one_sample_has_full_uncertainty():
    candidates = priced(captured(samples=1))
    assert all(c.loss_increase_sd == pytest.approx(c.loss_increase) for c in candidates)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 30), st.integers(0, 10_000))
def test_shrinking_stays_between_the_diagonal_and_the_full_form(samples, seed):
    generator = torch.Generator().manual_seed(seed)
    diagonal, full = (torch.rand(samples, 3, generator=generator, dtype=torch.float64) ** 2 for _ in range(2))
    units = torch.randint(1, 5, (samples,), generator=generator)
    mean, _ = shrunk(diagonal, full, units)
    ends = torch.stack([ratio(diagonal, units)[0], ratio(full, units)[0]])
    assert (mean >= ends.amin(0) - 1e-12).all()
    assert (mean <= ends.amax(0) + 1e-12).all()
