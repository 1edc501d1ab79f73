import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.evaluation import compare, divergence, interval, observe
from paredown.specs import Plan
from paredown.tasks import Batch, Predictions, Scores, custom


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 20), st.integers(0, 10_000))
def test_divergence_is_that_of_the_definition_and_never_negative(classes, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = (4 * torch.randn(5, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    p, q = a.softmax(-1).numpy(), b.softmax(-1).numpy()
    np.testing.assert_allclose(divergence(a, b).numpy(), (p * np.log(p / q)).sum(-1), rtol=1e-6, atol=1e-10)
    assert (divergence(a, a) == 0).all()


def test_the_interval_holds_the_value_and_narrows_with_samples():
    draw = np.random.default_rng(0)
    few, many = ((draw.random(n) < 0.8).astype(float) for n in (50, 5000))
    widths = []
    for hits in (few, many):
        value, low, high = interval(Scores(hits, np.ones_like(hits)))
        assert low <= value <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5


def test_bootstrap_intervals_cover_the_truth():
    """A 95 % interval of an accuracy of 0.7 at n = 200 holds it in 91 to 98 % of 300 seeded repetitions."""
    draw = np.random.default_rng(1)
    hits = 0
    for seed in range(300):
        right = (draw.random(200) < 0.7).astype(float)
        _, low, high = interval(Scores(right, np.ones(200)), seed=seed, resamples=400)
        hits += low <= 0.7 <= high
    assert 273 <= hits <= 294


def test_perplexity_is_exponential_of_the_ratio():
    value, low, high = interval(Scores(np.array([2.0, 4.0]), np.array([1.0, 1.0]), "exp"))
    assert value == pytest.approx(np.exp(3))
    assert low == pytest.approx(np.exp(2))
    assert high == pytest.approx(np.exp(4))


def test_one_sample_has_no_interval():
    assert interval(Scores(np.array([1.0]), np.array([1.0]))) == (1.0, None, None)


class Fixed:
    """A task whose predictions are given."""

    metric, label, higher_is_better, offers_probabilities = "accuracy", "fixed", True, True

    def __init__(self, *logits):
        self.logits = list(logits)

    def predictions(self, model, batch):
        rows = len(batch.ids)
        return Predictions(self.logits.pop(0), torch.zeros(rows, dtype=torch.long), torch.arange(rows))

    def scores(self, model, batches, predictions):
        hits = np.concatenate([(p.logits.argmax(-1) == p.targets).numpy() for p in predictions]).astype(float)
        return Scores(hits, np.ones_like(hits))


def test_a_comparison_counts_flips_and_kl_per_unit():
    before = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    after = torch.tensor([[1.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    batch = Batch({}, None, (0, 1, 2))
    task = Fixed(before, after)
    original, compressed = (observe(torch.nn.Identity(), task, [batch]) for _ in range(2))
    result = compare(original, compressed, task, Plan("m", "d", {}, 7), split="held_out", data_digest="x")
    assert result.flips == pytest.approx(1 / 3)
    assert result.kl == pytest.approx(float(divergence(before, after).mean()))
    assert result.kl_sd == pytest.approx(float(divergence(before, after).std() / 3**0.5))
    assert result.metric.value == 1.0
    assert result.bytes == 7
    assert "emulated" in result.kernel


def test_a_metric_that_is_not_a_number_is_refused():
    task = custom(
        lambda model: float("nan"), batches=[Batch({}, None, (0,))], calibration=[Batch({}, None, (1,))], higher_is_better=True,
        loss=lambda model, batch: torch.zeros(1),
    )  # fmt: skip
    with pytest.raises(ParedownError, match=r"NaN"):
        observe(torch.nn.Identity(), task, task.batches("held_out"))
