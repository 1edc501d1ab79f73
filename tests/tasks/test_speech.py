from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from paredown.errors import ParedownError
from paredown.models import LoadedModel, SpeechProcessor
from paredown.tasks import Batch, SpeechRecognition
from paredown.tasks.base import IGNORED
from paredown.tasks.speech import SpeechPredictions, normalise, word_errors

START, END = 30, 31
LETTERS = "abcdefghijklmnopqrstuvwxyz '"
RNG = np.random.default_rng(0)
CLIPS = [RNG.normal(scale=0.1, size=size).astype(np.float32) for size in (16000, 4000, 8000, 12000)]
TEXTS = ["Hi there, you", "yes", "no way", "One two"]


class Letters:
    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [LETTERS.index(letter) for letter in text.lower() if letter in LETTERS]

    def batch_decode(self, rows: torch.Tensor, skip_special_tokens: bool) -> list[str]:
        return ["".join(LETTERS[token] for token in row if token < len(LETTERS)) for row in rows.tolist()]


@pytest.fixture(scope="module")
def whisper() -> LoadedModel:
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=32, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        num_mel_bins=8, max_source_positions=100, max_target_positions=64, pad_token_id=END, bos_token_id=END, eos_token_id=END, decoder_start_token_id=START,
        init_std=0.5,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    model.generation_config.begin_suppress_tokens = [END]
    model.generation_config.suppress_tokens = [5]
    processor = SpeechProcessor(WhisperFeatureExtractor(feature_size=8, chunk_length=30), Letters())
    return LoadedModel("tiny-whisper", "tiny Whisper", model, processor, "0" * 16, "float32", 0)


def task_of(loaded: LoadedModel, **changes: object) -> SpeechRecognition:
    given = {
        "calibration": CLIPS[:1],
        "calibration_transcripts": TEXTS[:1],
        "held_out": CLIPS,
        "held_out_transcripts": TEXTS,
        "batch_size": 3,
    }
    return SpeechRecognition(loaded, **{**given, **changes})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Press 1, or say: HELP!", "press one or say help"),
        ("call-back at 24", "call back at 24"),
        ("you & me", "you and me"),
        ("It's  10", "it's ten"),
        ("--", ""),
    ],
)
def test_normalise(text: str, words: str) -> None:
    assert normalise(text) == words


@pytest.mark.parametrize(
    ("reference", "heard", "errors"),
    [("a b c", "a b c", 0), ("a b c", "a x c", 1), ("a b c", "a c", 1), ("a b c", "a b b c", 1), ("a b c", "", 3), ("a b c", "x " * 20, 3)],
    ids=["right", "substitution", "deletion", "insertion", "silence", "a loop, capped"],
)
def test_word_errors(reference: str, heard: str, errors: int) -> None:
    assert word_errors(reference, heard) == (errors, 3)


def test_decoder_reads_the_reference_and_predicts_the_next_token(whisper: LoadedModel) -> None:
    batch = task_of(whisper).batches("held_out")[0]
    assert batch.ids == (1, 2, 3)
    yes = [LETTERS.index(letter) for letter in " yes"]
    assert batch.targets is not None
    assert batch.inputs["decoder_input_ids"][0].tolist() == [START, *yes, END, END, END, END]
    assert batch.targets[0].tolist() == [*yes, END, IGNORED, IGNORED, IGNORED, IGNORED]
    assert batch.inputs["input_features"].shape == (3, 8, 200)
    assert task_of(whisper).units(batch).tolist() == [5, 8, 9]


def test_a_longer_prompt_is_context_alone(whisper: LoadedModel) -> None:
    batch = task_of(whisper, prompt=[START, 29, 28]).batches("held_out", 1)[0]
    assert batch.targets is not None
    assert batch.inputs["decoder_input_ids"][0, :4].tolist() == [START, 29, 28, LETTERS.index(" ")]
    assert batch.targets[0, :3].tolist() == [IGNORED, IGNORED, LETTERS.index(" ")]


def test_batching_does_not_change_loss_or_transcript(whisper: LoadedModel) -> None:
    together, alone = task_of(whisper), task_of(whisper, batch_size=1)
    batch = together.batches("held_out")[0]
    singles = [single for single in alone.batches("held_out") if single.ids[0] in batch.ids]
    losses = torch.cat([alone.loss(whisper.model, single) for single in singles])
    torch.testing.assert_close(together.loss(whisper.model, batch), losses, rtol=1e-4, atol=1e-5)


def test_greedy_writing_is_that_of_generate(whisper: LoadedModel) -> None:
    task = task_of(whisper, prompt=[START, 29])
    for batch in task.batches("held_out"):
        features = batch.inputs["input_features"]
        limit = int(4.5 * max(batch.seconds)) + 6  # pyright: ignore[reportAttributeAccessIssue]
        tokens = whisper.model.generate(  # pyright: ignore[reportCallIssue]
            input_features=features,
            attention_mask=torch.ones(len(features), features.shape[-1]),
            decoder_input_ids=torch.tensor([[START, 29]] * len(features)),
            max_new_tokens=limit,
            do_sample=False,
        )
        wanted = [normalise(text) for text in Letters().batch_decode(tokens[:, -limit:], True)]
        assert task.transcribe(whisper.model, batch) == wanted
        assert task.transcribe(whisper.model, batch, task.predictions(whisper.model, batch).encoded) == wanted
        assert any(wanted)


def test_word_error_rate_is_over_all_words(whisper: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(whisper)
    heard = {"yes": "yes", "no way": "no", "one two": "a b c d e", "hi there you": "hi there you"}
    monkeypatch.setattr(task, "transcribe", lambda model, batch, encoded: [heard[reference] for reference in batch.references])
    scores = task.scores(whisper.model, task.batches("held_out"))
    assert scores.numerator.tolist() == [0, 1, 2, 0]
    assert scores.denominator.tolist() == [1, 2, 2, 3]
    assert math.isclose(scores.value(), 3 / 8)


def test_scores_reuse_what_the_encoder_made(whisper: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(whisper)
    batches = task.batches("held_out")
    with torch.inference_mode():
        predictions = [task.predictions(whisper.model, batch) for batch in batches]
    assert all(isinstance(made, SpeechPredictions) for made in predictions)
    without = task.scores(whisper.model, batches)
    encoder = whisper.model.get_submodule("model.encoder")
    monkeypatch.setattr(encoder, "forward", lambda *_, **__: pytest.fail("encoded again"))
    np.testing.assert_array_equal(task.scores(whisper.model, batches, predictions).numerator, without.numerator)


def test_nan_while_writing_names_the_batch(whisper: LoadedModel) -> None:
    task = task_of(whisper)
    batch = task.batches("held_out", 2)[0]
    with pytest.raises(ParedownError, match="NaN or infinite logits for the batch of samples 1, 0"):
        task.transcribe(whisper.model, batch, torch.full((2, 100, 16), torch.nan))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out_transcripts": None}, "expected labels for the held_out samples, got none"),
        ({"held_out_transcripts": ["one"]}, "got 4 samples and 1 labels"),
        (
            {"calibration": [np.zeros(40000, np.float32)]},
            "clips of at most 2 s, the window of tiny-whisper; clip 0 of the calibration split has 2.5 s",
        ),
    ],
    ids=["no transcripts", "too few transcripts", "too long"],
)
def test_bad_data_is_refused(whisper: LoadedModel, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ParedownError, match=message):
        task_of(whisper, **changes)


def test_other_models_are_refused(whisper: LoadedModel, tiny_llama: LoadedModel) -> None:
    with pytest.raises(
        ParedownError, match=r"expected an encoder-decoder speech model such as Whisper, .* is a LlamaForCausalLM; use tasks.custom"
    ):
        task_of(tiny_llama)
    with pytest.raises(ParedownError, match="expected a feature extractor and a tokenizer with tiny-whisper, it has not both"):
        task_of(replace(whisper, processor=None))


def test_a_batch_of_another_task_is_refused(whisper: LoadedModel) -> None:
    with pytest.raises(ParedownError, match="expected a batch of this task's own"):
        task_of(whisper).transcribe(whisper.model, Batch({}, None, (0,)))
