"""Do 95 % intervals hold the truth? Data errors here; those of probes alone in `test_hutchinson`."""

import numpy as np
import torch

from paredown.curvature import gauss_newton, ratio
from surfaces import plain


def test_intervals_over_samples_hold_the_dense_truth_in_90_to_99_percent_of_repetitions():
    """200 seeded draws of 60 samples from a population, whose dense matrix gives the true trace and quadratic form."""
    surface, layers = plain((4, 5, 3), samples=600, batch_size=600)
    operator = gauss_newton(surface, layers[:1])
    change = torch.randn(layers[0].parameters, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    dense = operator.dense()
    truth = torch.stack([dense.trace(), change @ dense @ change])
    parts = torch.cat([operator.sample_traces()[:, None], operator.sample_forms([change])], 1)
    held = []
    for seed in range(200):
        rows = torch.randint(600, (60,), generator=torch.Generator().manual_seed(seed))
        mean, error = ratio(parts[rows], surface.units[rows])
        held.append(((mean - truth).abs() <= 1.96 * error).double().numpy())
    share = np.mean(held, 0)
    assert ((share >= 0.90) & (share <= 0.99)).all(), share


def test_with_random_probes_the_data_error_holds_their_noise_too():
    """A sample's probe is drawn with the sample: intervals of noisy parts still hold the truth of the exact matrix."""
    surface, layers = plain((4, 5, 3), samples=400, batch_size=400)
    truth = gauss_newton(surface, layers).trace()
    held = []
    parts = [gauss_newton(surface, layers, exact=False, seed=seed).sample_traces() for seed in range(20)]
    for seed in range(200):
        rows = torch.randint(400, (60,), generator=torch.Generator().manual_seed(seed))
        mean, error = ratio(parts[seed % 20][rows, None], surface.units[rows])
        held.append(abs(float(mean) - truth) <= 1.96 * float(error))
    assert 0.90 <= np.mean(held) <= 0.99
