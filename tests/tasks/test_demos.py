from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from torch import nn
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from paredown import demos, models, tasks
from paredown.errors import ParedownError
from paredown.models import LoadedModel, SpeechProcessor
from paredown.specs import Split
from paredown.tasks import Task
from paredown.tasks.demos import doubled, enlarged, expand_mulaw

EVERYTHING = 10**6


class Words:
    """A tokenizer that numbers words as it meets them."""

    pad_token_id = 0

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def encode(self, text: str, **_: object) -> list[int]:
        return [self.known.setdefault(word, len(self.known) + 1) for word in re.findall(r"\w+|\S", text)]

    def __call__(self, texts: str | list[str], **_: object) -> dict[str, list]:
        return {"input_ids": self.encode(texts) if isinstance(texts, str) else [self.encode(text) for text in texts]}


class StandInForSequenceClassification(nn.Module):
    pass


class StandInForImageClassification(nn.Module):
    pass


class StandInForCausalLM(nn.Module):
    pass


def whisper() -> nn.Module:
    return WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=64, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1, decoder_attention_heads=1, encoder_ffn_dim=8,
            decoder_ffn_dim=8, max_source_positions=500, max_target_positions=8, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=1,
        )
    )  # fmt: skip


STAND_INS = {
    "sentiment": lambda: (StandInForSequenceClassification(), Words()),
    "vision": lambda: (StandInForImageClassification(), None),
    "speech": lambda: (whisper(), SpeechProcessor(WhisperFeatureExtractor(), Words())),
    "lm": lambda: (StandInForCausalLM(), Words()),
}


@pytest.fixture(scope="module", params=demos.names)
def task(request: pytest.FixtureRequest) -> Task:
    model, processor = STAND_INS[request.param]()
    return tasks.load(f"demo:{request.param}", LoadedModel("stand-in", "a stand-in", model, processor, "0" * 16, "float32", 0))


def rows(task: Task, split: Split) -> list[bytes]:
    """The inputs of every sample of a split, without padding."""
    found: list[bytes] = []
    for batch in task.batches(split, EVERYTHING):
        main = next(iter(batch.inputs.values()))
        for row in main:
            values = row[row != 0] if not row.is_floating_point() else row
            found.append(values.numpy().tobytes())
    return found


def test_no_sample_is_in_both_splits(task: Task) -> None:
    calibration, held_out = rows(task, "calibration"), rows(task, "held_out")
    assert not set(calibration) & set(held_out)
    assert len(held_out) >= task.default_samples["held_out"]
    assert len(calibration) >= task.default_samples["calibration"]


def test_batches_are_the_same_every_time(task: Task) -> None:
    for split in ("calibration", "held_out"):
        assert task.data_digest(split, 12) == task.data_digest(split, 12)
        assert sorted(i for batch in task.batches(split, 12) for i in batch.ids) == list(range(12))


def test_default_sizes(task: Task) -> None:
    wanted = {"sentiment": (256, 500), "vision": (64, 256), "speech": (20, 60), "lm": (16, 8)}[task.name.removeprefix("demo:")]
    assert (task.default_samples["calibration"], task.default_samples["held_out"]) == wanted
    assert all(batch.targets is not None for batch in task.batches("held_out", 3))


def test_unknown_task_lists_the_names(tiny_llama: LoadedModel) -> None:
    with pytest.raises(ParedownError, match="expected one of the tasks demo:sentiment, demo:vision, demo:speech, demo:lm, got 'sentiment'"):
        tasks.load("sentiment", tiny_llama)


@pytest.mark.parametrize("name", ["demo:sentiment", "demo:vision", "demo:speech"])
def test_a_model_of_another_kind_is_refused(name: str, tiny_llama: LoadedModel) -> None:
    with pytest.raises(ParedownError, match="LlamaForCausalLM"):
        tasks.load(name, tiny_llama)


def test_mulaw_is_odd_and_spans_the_range() -> None:
    wave = expand_mulaw(np.arange(256, dtype=np.uint8))
    np.testing.assert_allclose(wave, -wave[::-1], atol=1e-6)
    assert wave[-1] == pytest.approx(1)
    assert (np.diff(wave) > 0).all()
    companded = (np.log1p(255 * np.abs(wave)) / np.log(256) * np.sign(wave) + 1) * 127.5  # the formula of G.711, forwards
    np.testing.assert_array_equal(companded.round(), np.arange(256))


def test_doubled_keeps_a_slow_tone() -> None:
    time = np.arange(800) / 8000
    got = doubled(np.sin(2 * np.pi * 100 * time))
    wanted = np.sin(2 * np.pi * 100 * (np.arange(1600) / 16000 - 0.25 / 8000))  # samples sit a quarter of a step aside
    np.testing.assert_allclose(got[4:-4], wanted[4:-4], atol=2e-3)


def test_enlarged_is_normalised() -> None:
    values = enlarged(torch.full((2, 28, 28), 255, dtype=torch.uint8))
    assert values.shape == (2, 3, 112, 112)
    torch.testing.assert_close(values[0, :, 50, 50], (1 - torch.tensor(demos.dinov2.MEAN)) / torch.tensor(demos.dinov2.STD))


def standard_error(share: float, n: int) -> float:
    return math.sqrt(share * (1 - share) / n)


@pytest.mark.demo
@pytest.mark.parametrize(
    ("name", "limit", "figure", "tolerance"),
    [
        ("sentiment", 500, 0.858, standard_error(0.858, 500)),
        ("vision", 128, 0.872, 2 * standard_error(0.872, 128)),
        ("lm", 4, 57.9, 0.5),
        ("speech", 60, 0.043, 2 * standard_error(0.043, 515)),
    ],
    ids=["sentiment: accuracy", "vision: accuracy", "lm: perplexity", "speech: word error rate"],
)
def test_the_demo_models_reach_the_figures_that_were_measured_before(name: str, limit: int, figure: float, tolerance: float) -> None:
    """The figures are those of trials with other code; the tolerance is their sampling error, and rounding for the same text."""
    loaded = models.load(f"demo:{name}")
    task = tasks.load(f"demo:{name}", loaded)
    assert task.scores(loaded.model, task.batches("held_out", limit)).value() == pytest.approx(figure, abs=tolerance)
