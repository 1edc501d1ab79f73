from __future__ import annotations

import pytest
import torch
from torch import nn

from paredown import tasks
from paredown.errors import ParedownError
from paredown.models import LoadedModel
from paredown.tasks import Batch, Custom, Task

X = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
BATCHES = [{"x": X[:4], "labels": torch.tensor([0, 1, 0, 1])}, {"x": X[4:7], "labels": torch.tensor([1, 1, 0])}]
CALIBRATION = [{"x": X[7:]}]


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def share_of_ones(model: nn.Module) -> float:
    return float((model(X).argmax(-1) == 1).float().mean())


def of_logits(**changes: object) -> Custom:
    given = {
        "batches": BATCHES,
        "calibration": CALIBRATION,
        "higher_is_better": True,
        "logits": lambda model, batch: model(batch.inputs["x"]),
    }
    return tasks.custom(share_of_ones, **{**given, **changes})  # pyright: ignore[reportArgumentType]


def test_any_callable_is_a_metric() -> None:
    model, task = Plain(), of_logits()
    batches = task.batches("held_out")
    assert task.metric == "share of ones"
    assert task.offers_probabilities
    assert [batch.ids for batch in batches] == [(0, 1, 2, 3), (4, 5, 6)]
    assert set(batches[0].inputs) == {"x"}
    scores = task.scores(model, batches)
    assert scores.value() == share_of_ones(model)
    assert len(scores.numerator) == 1
    expected = nn.functional.cross_entropy(model(X[4:7]), BATCHES[1]["labels"], reduction="none")
    torch.testing.assert_close(task.loss(model, batches[1]), expected)


def test_a_loss_of_ones_own() -> None:
    task = of_logits(logits=None, loss=lambda model, batch: model(batch.inputs["x"]).square().sum(-1))
    model, batch = Plain(), task.batches("calibration")[0]
    assert not task.offers_probabilities
    torch.testing.assert_close(task.loss(model, batch), model(X[7:]).square().sum(-1))
    assert task.units(batch).tolist() == [1, 1, 1]
    with pytest.raises(ParedownError, match="offers no probabilities: it was given a loss and no logits"):
        task.predictions(model, batch)


def test_logits_of_a_transformers_model_need_no_words(tiny_wav2vec2: LoadedModel, tiny_wav2vec2_task: Task) -> None:
    batches = tiny_wav2vec2_task.batches("held_out")
    with torch.no_grad():
        made = tiny_wav2vec2_task.predictions(tiny_wav2vec2.model, batches[0])
    assert made.logits.shape == (20, 10)
    assert tiny_wav2vec2_task.scores(tiny_wav2vec2.model, batches).value() > 0.8


@pytest.mark.parametrize(("limit", "sizes"), [(None, [4, 3]), (5, [4, 1]), (4, [4]), (100, [4, 3])])
def test_a_limit_cuts_the_last_batch(limit: int | None, sizes: list[int]) -> None:
    batches = of_logits().batches("held_out", limit)
    assert [len(batch.ids) for batch in batches] == [len(batch.inputs["x"]) for batch in batches] == sizes


def test_ready_batches_are_taken_as_they_are() -> None:
    batch = Batch({"x": X}, None, tuple(range(10)))
    assert of_logits(batches=[batch]).batches("held_out")[0] is batch


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batches": []}, "at least one held-out batch, got none"),
        ({"calibration": []}, "at least one calibration batch, got none"),
        ({"batches": [{"x": [1, 2]}]}, "a Batch or a dict of tensors, the keyword arguments of model.forward; got {'x'"),
        ({"batches": [{"x": X[:0]}]}, "at least one sample in"),
    ],
    ids=["no batches", "no calibration", "no tensors", "empty batch"],
)
def test_bad_batches_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ParedownError, match=message):
        of_logits(**changes)


def test_a_metric_must_be_callable() -> None:
    with pytest.raises(ParedownError, match="metric must be a callable that takes the model and returns a number, got float"):
        tasks.custom(0.5, batches=BATCHES, calibration=CALIBRATION, higher_is_better=True)  # pyright: ignore[reportArgumentType]


def test_broken_figures_are_named() -> None:
    model = Plain()
    task = tasks.custom(
        lambda _: float("nan"), batches=BATCHES, calibration=CALIBRATION, higher_is_better=True, loss=lambda *_: torch.full((4,), torch.inf)
    )
    batch = task.batches("held_out")[0]
    with pytest.raises(ParedownError, match="expected a finite metric, the callable returned nan"):
        task.scores(model, [batch])
    with pytest.raises(ParedownError, match="NaN or infinite losses for the batch of samples 0, 1, 2, 3"):
        task.loss(model, batch)
    mean = of_logits(logits=None, loss=lambda *_: torch.tensor(1.0))
    with pytest.raises(
        ParedownError, match=r"expected a tensor \[4\] from the loss of custom, one value a sample, got \[\]; don't average"
    ):
        mean.loss(model, batch)
    with pytest.raises(ParedownError, match="expected logits in the output of Plain, got Tensor; give logits="):
        tasks.custom(share_of_ones, batches=BATCHES, calibration=CALIBRATION, higher_is_better=True).predictions(model, batch)
