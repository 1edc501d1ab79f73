from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from paredown.errors import ParedownError
from paredown.models import LoadedModel
from paredown.tasks import Batch, ImageClassification, SequenceClassification, Task

TEXTS = ["a b c d e f g", "h", "i j k", "l m", "n o p q r", "s t"]


class Letters:
    """A tokenizer of letters; 0 pads."""

    pad_token_id = 0

    def __call__(self, texts: list[str], truncation: bool, max_length: int) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(letter) - 96 for letter in text.split()][:max_length] for text in texts]}


@pytest.fixture(scope="module")
def bert() -> LoadedModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=3,
    )
    return LoadedModel("tiny-bert", "tiny BERT", BertForSequenceClassification(config).eval(), Letters(), "0" * 16, "float32", 0)


def task_of(loaded: LoadedModel, **changes: object) -> SequenceClassification:
    given = {"calibration": TEXTS[:2], "held_out": TEXTS, "held_out_labels": [0, 1, 2, 0, 1, 2], "max_length": 5, "batch_size": 4}
    return SequenceClassification(loaded, **{**given, **changes})  # pyright: ignore[reportArgumentType]


def test_texts_are_sorted_by_length_and_padded_little(bert: LoadedModel) -> None:
    first, second = task_of(bert).batches("held_out")
    assert first.ids == (1, 3, 5, 2)
    assert second.ids == (0, 4)
    assert first.inputs["input_ids"].tolist() == [[8, 0, 0], [12, 13, 0], [19, 20, 0], [9, 10, 11]]
    assert first.inputs["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0], [1, 1, 1]]
    assert first.targets is not None
    assert first.targets.tolist() == [1, 0, 2, 2]


def test_batching_does_not_change_the_predictions(bert: LoadedModel) -> None:
    """Each text alone, without padding, is the oracle."""
    task = task_of(bert)
    for batch in task.batches("held_out"):
        together = task.predictions(bert.model, batch).logits
        for row, index in enumerate(batch.ids):
            ids = torch.tensor([[ord(letter) - 96 for letter in TEXTS[index].split()][:5]])
            torch.testing.assert_close(together[row], bert.model(input_ids=ids).logits[0], rtol=1e-5, atol=1e-6)


def test_accuracy_and_loss_from_predictions_and_without(bert: LoadedModel) -> None:
    task = task_of(bert)
    batches = task.batches("held_out")
    predictions = [task.predictions(bert.model, batch) for batch in batches]
    right = sum(int((p.logits.argmax(-1) == p.targets).sum()) for p in predictions)
    for scores in (task.scores(bert.model, batches, predictions), task.scores(bert.model, batches)):
        assert scores.value() == right / 6
        assert scores.numerator.dtype == np.float64
    expected = torch.nn.functional.cross_entropy(predictions[0].logits, batches[0].targets, reduction="none")
    torch.testing.assert_close(task.loss(bert.model, batches[0]), expected)
    assert task.units(batches[0]).tolist() == [1, 1, 1, 1]


def test_predictions_are_differentiable(bert: LoadedModel) -> None:
    task = task_of(bert)
    bias = bert.model.get_parameter("classifier.bias")
    (gradient,) = torch.autograd.grad(task.loss(bert.model, task.batches("held_out")[0]).sum(), bias)
    assert gradient.abs().sum() > 0


def test_calibration_needs_no_labels(bert: LoadedModel) -> None:
    task = task_of(bert)
    (batch,) = task.batches("calibration")
    assert batch.targets is None
    assert task.predictions(bert.model, batch).targets is None
    with pytest.raises(ParedownError, match="expected labels for accuracy, the batch of samples 1, 0 has none"):
        task.scores(bert.model, [batch])
    with pytest.raises(ParedownError, match="expected labels for the loss"):
        task.loss(bert.model, batch)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out_labels": None}, "expected labels for the held-out samples, got none"),
        ({"held_out_labels": [0, 1]}, "one label for each held-out sample, got 6 samples and 2 labels"),
        ({"held_out_labels": [0, 1, 2, 3, 0, 0]}, "labels from 0 to 2, the classes of tiny-bert; got 0 to 3 in the held_out split"),
        ({"calibration_labels": [-1, 0]}, "got -1 to 0 in the calibration split"),
        ({"calibration": []}, "at least one calibration sample, got none"),
    ],
    ids=["no labels", "too few labels", "label too large", "negative label", "no samples"],
)
def test_bad_data_is_refused(bert: LoadedModel, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ParedownError, match=message):
        task_of(bert, **changes)


def test_a_model_without_tokenizer_is_refused(bert: LoadedModel) -> None:
    with pytest.raises(ParedownError, match="expected a tokenizer with tiny-bert"):
        task_of(replace(bert, processor=None))


def test_images(tiny_vit: LoadedModel, tiny_vit_task: Task) -> None:
    batches = tiny_vit_task.batches("held_out")
    assert [len(batch.ids) for batch in batches] == [32] * 8
    with torch.no_grad():
        assert tiny_vit_task.scores(tiny_vit.model, batches).value() > 0.75
    assert batches[0].inputs["pixel_values"].shape == (32, 1, 28, 28)


def test_images_through_the_models_own_processor(tiny_vit: LoadedModel) -> None:
    def processor(images: list[int], return_tensors: str) -> dict[str, torch.Tensor]:
        return {"pixel_values": torch.stack([torch.full((1, 28, 28), float(image)) for image in images])}

    loaded = replace(tiny_vit, processor=processor)
    task = ImageClassification(loaded, calibration=[1, 2], held_out=[3, 4], held_out_labels=[0, 1])
    assert task.batches("held_out")[0].inputs["pixel_values"][:, 0, 0, 0].tolist() == [3.0, 4.0]
    with pytest.raises(ParedownError, match=r"expected an image processor with .*prepare="):
        ImageClassification(tiny_vit, calibration=[1, 2], held_out=[3, 4], held_out_labels=[0, 1])


def test_a_tensor_of_pixel_values_is_taken_as_it_is(tiny_vit: LoadedModel) -> None:
    images = torch.randn(4, 1, 28, 28)
    task = ImageClassification(tiny_vit, calibration=images[:2], held_out=images[2:], held_out_labels=torch.tensor([0, 1]))
    batch: Batch = task.batches("held_out")[0]
    assert torch.equal(batch.inputs["pixel_values"], images[2:])
