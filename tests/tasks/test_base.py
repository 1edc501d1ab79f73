from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.tasks import Batch, Predictions, Scores, Task
from paredown.tasks.base import IGNORED, check_finite, chosen, counted, cross_entropy, device_of


def test_padding_is_never_counted() -> None:
    logits = torch.randn(2, 3, 5)
    logits[1, 1] = float("nan")  # at a padded position: not even looked at
    targets = torch.tensor([[4, IGNORED, 1], [2, IGNORED, IGNORED]])
    made = counted(logits, Batch({}, targets, (7, 8)))
    assert made.sample.tolist() == [0, 0, 1]
    assert torch.equal(made.logits, torch.stack([logits[0, 0], logits[0, 2], logits[1, 0]]))
    assert made.targets is not None
    assert made.targets.tolist() == [4, 1, 2]


def test_without_labels_every_position_counts() -> None:
    made = counted(torch.randn(2, 3, 5), Batch({}, None, (0, 1)))
    assert made.sample.tolist() == [0, 0, 0, 1, 1, 1]
    assert made.targets is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_logits_name_the_batch(value: float) -> None:
    logits = torch.randn(6, 4)
    logits[2, 1] = value
    with pytest.raises(ParedownError, match=r"NaN or infinite logits for the batch of samples 3, 5, 7, 9, \.\.\.; look for"):
        counted(logits, Batch({}, None, (3, 5, 7, 9, 11, 13)))


def test_cross_entropy_is_summed_over_each_sample() -> None:
    logits = torch.randn(5, 4, dtype=torch.float64)
    targets, sample = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([0, 0, 2, 2, 2])
    each = [-float(logits[i].softmax(0)[targets[i]].log()) for i in range(5)]
    got = cross_entropy(Predictions(logits, targets, sample), Batch({}, targets, (4, 5, 6)))
    np.testing.assert_allclose(got, [each[0] + each[1], 0.0, each[2] + each[3] + each[4]], rtol=1e-12)


def test_missing_labels_are_named() -> None:
    batch = Batch({}, None, (0, 1))
    with pytest.raises(ParedownError, match="expected labels for the loss, the batch of samples 0, 1 has none"):
        cross_entropy(Predictions(torch.randn(2, 3), None, torch.arange(2)), batch)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 60), st.integers(1, 9))
def test_chosen_takes_the_first_samples_once_in_order_of_length(lengths: list[int], limit: int, batch_size: int) -> None:
    batches = chosen(lengths, limit, 5, batch_size)
    flat = [i for batch in batches for i in batch]
    assert sorted(flat) == list(range(min(limit, len(lengths))))
    assert [lengths[i] for i in flat] == sorted(lengths[i] for i in flat)
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_chosen_takes_the_default_without_a_limit() -> None:
    assert chosen([0] * 10, None, 3, 2) == [[0, 1], [2]]
    with pytest.raises(ParedownError, match="limit must be at least 1, got 0"):
        chosen([0] * 10, 0, 3, 2)


def test_scores_value() -> None:
    assert Scores(np.array([1.0, 0.0]), np.array([1.0, 3.0])).value() == 0.25
    assert Scores(np.array([2.0, 4.0]), np.array([1.0, 1.0]), "exp").value() == pytest.approx(np.exp(3))


def test_device_of_a_model_of_buffers_alone() -> None:
    module = torch.nn.Module()
    assert device_of(module).type == "cpu"
    module.register_buffer("codes", torch.zeros(2, device="meta"))
    assert device_of(module).type == "meta"


def test_data_digest_follows_the_data(tiny_vit_task: Task) -> None:
    digest = tiny_vit_task.data_digest("held_out", 10)
    assert digest == tiny_vit_task.data_digest("held_out", 10)
    assert len({digest, tiny_vit_task.data_digest("held_out", 11), tiny_vit_task.data_digest("calibration", 10)}) == 3


def test_unknown_split(tiny_vit_task: Task, tiny_llama_task: Task) -> None:
    for task in (tiny_vit_task, tiny_llama_task):
        with pytest.raises(ParedownError, match="split must be calibration or held_out, got 'test'"):
            task.batches("test")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("places", ["same slice", "same holes", "unlike"])
def test_counted_logits_are_those_of_the_mask(places: str) -> None:
    logits, targets = torch.randn(3, 7, 5), torch.full((3, 7), IGNORED)
    targets[:, {"same slice": slice(1, 5), "same holes": slice(0, 7, 2), "unlike": slice(2, 4)}[places]] = 3
    if places == "unlike":
        targets[1, 6] = 1
    found = counted(logits, Batch({}, targets, (0, 1, 2)))
    assert torch.equal(found.logits, logits[targets != IGNORED])
    assert len(found.sample) == len(found.logits)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_value_that_is_not_finite_is_refused(bad: float) -> None:
    values = torch.randn(4, 5)
    check_finite(values, Batch({}, None, (0,)), "logits")
    check_finite(values[:0], Batch({}, None, (0,)), "logits")
    values[2, 3] = bad
    with pytest.raises(ParedownError, match="NaN or infinite logits"):
        check_finite(values, Batch({}, None, (0,)), "logits")
