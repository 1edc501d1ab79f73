import dataclasses

import pytest

from paredown.curvature import gauss_newton, slice_statistic, slices
from paredown.errors import ParedownError
from paredown.tasks import Batch
from surfaces import plain


def test_slices_are_disjoint_cover_all_samples_and_are_nearly_equal():
    surface, _ = plain(samples=11, batch_size=4)
    parts = slices(surface, 3)
    ids = [i for part in parts for batch in part.batches for i in batch.ids]
    assert sorted(ids) == list(range(11))
    assert sorted(part.samples for part in parts) == [3, 4, 4]


def test_equal_slices_have_no_deviation():
    surface, layers = plain(samples=2, batch_size=2)
    batch = surface.batches[0]
    # ids are dealt out in turn: each slice holds both samples, three times
    copies = [Batch(batch.inputs, batch.targets, (i, i + 3)) for i in range(3)]
    surface = dataclasses.replace(surface, batches=copies, units=surface.units.repeat(3))
    tops = [float(gauss_newton(part, layers).eigenvalues()[0]) for part in slices(surface, 3)]
    assert slice_statistic(tops) == pytest.approx(tops[0], rel=1e-12)


def test_the_statistic_adds_the_deviation_to_the_magnitude_of_the_mean():
    assert slice_statistic([-3.0, -1.0]) == pytest.approx(2 + 2**0.5)
    assert slice_statistic([5.0] * 4) == 5


def test_too_many_slices_and_too_few_values_are_refused():
    surface, _ = plain(samples=3)
    with pytest.raises(ParedownError, match="expected 1 to 3 slices, one sample each at least, got 4"):
        slices(surface, 4)
    with pytest.raises(ParedownError, match="at least two slices, got 1"):
        slice_statistic([1.0])
