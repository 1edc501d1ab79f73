"""What a plan did to each sample, from what two models answered batch by batch."""

import numpy as np
import torch

from paredown.evaluation import Observation
from paredown.evaluation.comparison import divergence
from paredown.evaluation.outcomes import outcomes
from paredown.tasks import Predictions, Scores


def observation(seed, samples, sizes):
    """Answers of three classes; `samples` names the row of each counted unit, batch by batch."""
    draw = torch.Generator().manual_seed(seed)
    made = tuple(
        Predictions(
            torch.randn(len(rows), 3, generator=draw), torch.zeros(len(rows), dtype=torch.long), torch.tensor(rows, dtype=torch.long)
        )
        for rows in samples
    )
    total = sum(sizes)
    return Observation(made, Scores(np.arange(total, dtype=float), np.ones(total)), 1.0, sum(map(len, samples)))


def test_samples_without_counted_units_keep_their_place_wherever_they_stand_in_a_batch():
    sizes, samples = [3, 2, 2, 1], [[0, 0, 2], [0], [], [0, 0]]
    before, after = (observation(seed, samples, sizes) for seed in (0, 1))
    made = outcomes(before, after, sizes)
    assert made.units.tolist() == [2, 0, 1, 1, 0, 0, 0, 2]
    assert {len(getattr(made, name)) for name in ("units", "kl", "loss", "numerator", "denominator")} == {sum(sizes)}
    for part, places in ((0, [0, 0, 2]), (1, [3]), (3, [7, 7])):
        one, other = before.predictions[part].logits, after.predictions[part].logits
        for place in set(places):
            mine = [i for i, each in enumerate(places) if each == place]
            assert made.kl[place] == divergence(one, other)[mine].sum()
            np.testing.assert_allclose(made.loss[place], -other.log_softmax(-1)[mine, 0].sum(), rtol=1e-6)
    changed = [int((a.logits.argmax(-1) != b.logits.argmax(-1)).sum()) for a, b in zip(before.predictions, after.predictions, strict=True)]
    found = made.changed(outcomes(before, before, sizes))
    assert [found[:3].sum(), found[3:5].sum(), found[5:7].sum(), found[7:].sum()] == changed
