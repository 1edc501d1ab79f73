"""Speech recognition: word error rate of what the model writes, losses and KL on the reference transcripts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jiwer
import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from paredown.errors import ParedownError
from paredown.models import LoadedModel
from paredown.specs import Shown, Split
from paredown.tasks.base import (
    IGNORED,
    Batch,
    Predictions,
    Scores,
    Task,
    check_finite,
    check_samples,
    check_split,
    chosen,
    counted,
    cross_entropy,
    device_of,
    inputs_for,
)
from paredown.tasks.showing import pieces, wav

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_TOKENS_PER_SECOND = 4.5  # fast speech; a compressed model that falls into a loop would otherwise write until the context is full
_EXTRA_TOKENS = 6
_FRAMES_PER_POSITION = 2  # the encoder's second convolution has stride 2


def normalise(text: str) -> str:
    """Lower case, without punctuation, small numbers in words: what remains are the words that were said.

    Example:
        >>> normalise("Press 1 -- or say: Help!")
        'press one or say help'
    """
    text = re.sub(r"[^a-z0-9' ]", " ", text.lower().replace("&", " and "))
    return " ".join(_NUMBERS[int(word)] if word.isdigit() and int(word) < len(_NUMBERS) else word for word in text.split())


def word_errors(reference: str, heard: str) -> tuple[int, int]:
    """Wrong words of one clip, and the words of its reference.

    Substitutions, deletions and insertions count one each, and a clip never counts for more than all of its words: a model that
    repeats itself in one clip would otherwise outweigh many clips.

    Example:
        >>> word_errors("call me later", "call me me later")
        (1, 3)
        >>> word_errors("yes", "no no no no")
        (1, 1)
    """
    aligned = jiwer.process_words(reference, heard)
    words = aligned.hits + aligned.substitutions + aligned.deletions
    return min(aligned.substitutions + aligned.deletions + aligned.insertions, words), words


@dataclass(frozen=True, eq=False, kw_only=True)
class SpeechBatch(Batch):
    """A batch that also knows what was said and for how long.

    Attributes:
        references: Normalised transcripts.
        seconds: Durations of the clips.
    """

    references: tuple[str, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class SpeechPredictions(Predictions):
    """Predictions that keep what the encoder made of the clips, so that writing them out need not encode them again.

    Attributes:
        encoded: [samples, positions, width].
    """

    encoded: Tensor


class SpeechRecognition(Task):
    """Recorded clips and their transcripts, for an encoder-decoder model such as Whisper.

    Losses and KL are teacher-forced: the decoder reads the reference and predicts each next token of it. Only the metric lets the
    model write for itself, greedily, at most `_TOKENS_PER_SECOND` tokens per second of the batch's longest clip.

    Args:
        loaded: The model, its feature extractor and its tokenizer.
        calibration: Waveforms to calibrate on, mono, from -1 to 1.
        calibration_transcripts: What is said in them.
        held_out: Other waveforms, which results are measured on.
        held_out_transcripts: What is said in them.
        sampling_rate: Samples per second of the waveforms; what the feature extractor expects, usually 16000.
        prompt: Tokens that the decoder starts from; English transcription without timestamps where not given.
        batch_size: Clips in a batch.
        name: Identifies the task.
        label: The task in words.
        default_samples: Clips of each split that are taken by default; all where not given.

    Raises:
        ParedownError: If the model is of another kind, transcripts are missing, or a clip is longer than the model's window.
    """

    unit: Literal["sample", "token"] = "token"
    metric = "word error rate"
    higher_is_better = False
    offers_probabilities = True

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        calibration: Sequence[np.ndarray],
        calibration_transcripts: Sequence[str] | None,
        held_out: Sequence[np.ndarray],
        held_out_transcripts: Sequence[str] | None,
        sampling_rate: int = 16000,
        prompt: Sequence[int] | None = None,
        batch_size: int = 20,
        name: str = "speech-recognition",
        label: str = "Speech recognition",
        default_samples: Mapping[Split, int] | None = None,
    ) -> None:
        self.name, self.label, self.batch_size, self.sampling_rate = name, label, batch_size, sampling_rate
        config: Any = getattr(loaded.model, "config", None)
        extractor, tokenizer = (getattr(loaded.processor, part, None) for part in ("feature_extractor", "tokenizer"))
        if not getattr(config, "is_encoder_decoder", False) or getattr(loaded.model, "main_input_name", "") != "input_features":
            raise ParedownError(
                f"expected an encoder-decoder speech model such as Whisper, {loaded.id} is a {type(loaded.model).__name__}; use tasks.custom for other kinds"
            )
        if extractor is None or tokenizer is None:
            raise ParedownError(
                f"expected a feature extractor and a tokenizer with {loaded.id}, it has not both; save them into its folder with save_pretrained(folder)"
            )
        self._frames = _FRAMES_PER_POSITION * int(config.max_source_positions)
        self._extract: Callable[..., Any] = extractor
        self._tokenizer: Any = tokenizer
        self._end = int(config.eos_token_id)
        settings: Any = getattr(loaded.model, "generation_config", None)
        self._never = list(getattr(settings, "suppress_tokens", None) or ())
        self._never_first = self._never + list(getattr(settings, "begin_suppress_tokens", None) or ())
        self._prompt = list(prompt) if prompt is not None else _prompt(loaded.model)
        self._clips: dict[Split, Sequence[np.ndarray]] = {"calibration": calibration, "held_out": held_out}
        self._texts: dict[Split, Sequence[str]] = {}
        texts: tuple[tuple[Split, Sequence[str] | None], ...] = (
            ("calibration", calibration_transcripts),
            ("held_out", held_out_transcripts),
        )
        window = self._frames * extractor.hop_length / sampling_rate
        for split, transcripts in texts:
            check_samples(split, self._clips[split], transcripts, needed=True)
            self._texts[split] = transcripts or ()
            for i, seconds in enumerate(self._seconds(split)):
                if seconds > window:
                    raise ParedownError(
                        f"expected clips of at most {window:g} s, the window of {loaded.id}; clip {i} of the {split} split has {seconds:.1f} s: cut it"
                    )
        self.default_samples = default_samples or {"calibration": len(calibration), "held_out": len(held_out)}

    @override
    def batches(self, split: Split, limit: int | None = None) -> Sequence[Batch]:
        check_split(split)
        lengths = [len(clip) for clip in self._clips[split]]
        return [self._batch(split, rows) for rows in chosen(lengths, limit, self.default_samples[split], self.batch_size)]

    @override
    def predictions(self, model: nn.Module, batch: Batch) -> SpeechPredictions:
        output = model(**inputs_for(model, batch), use_cache=False)
        made = counted(output.logits, batch)
        return SpeechPredictions(made.logits, made.targets, made.sample, encoded=output.encoder_last_hidden_state)

    @override
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return cross_entropy(self.predictions(model, batch), batch)

    @override
    def scores(self, model: nn.Module, batches: Sequence[Batch], predictions: Sequence[Predictions] | None = None) -> Scores:
        counts: list[tuple[int, int]] = []
        written: list[str] = []
        for i, batch in enumerate(batches):
            made = predictions[i] if predictions is not None else None
            heard = self.transcribe(model, batch, made.encoded if isinstance(made, SpeechPredictions) else None)
            written += heard
            counts += [word_errors(*pair) for pair in zip(_speech(batch).references, heard, strict=True)]
        errors, words = np.asarray(counts, dtype=np.float64).T
        return Scores(errors, words, written=tuple(written))

    @override
    def shown(self, split: Split, index: int) -> Shown:
        sound = wav(self._clips[split][index], self.sampling_rate)
        return Shown(index, "", (normalise(self._texts[split][index]),), media="audio/wav", content=sound)

    @override
    def words(self, answers: Sequence[int]) -> list[str]:
        return pieces(self._tokenizer, answers)

    @torch.no_grad()
    def transcribe(self, model: nn.Module, batch: Batch, encoded: Tensor | None = None) -> list[str]:
        """What the model writes for each clip of the batch, greedily; normalised.

        Args:
            model: The model.
            batch: One of this task's batches.
            encoded: The encoder's output for it, where it is at hand: most of the work.
        """
        limit = int(_TOKENS_PER_SECOND * max(_speech(batch).seconds)) + _EXTRA_TOKENS
        inputs: dict[str, Any] = (
            {"encoder_outputs": (encoded,)} if encoded is not None else {"input_features": inputs_for(model, batch)["input_features"]}
        )
        step = torch.tensor([self._prompt] * len(batch.ids), device=device_of(model))
        ended = torch.zeros(len(batch.ids), dtype=torch.bool, device=step.device)
        written: list[Tensor] = []
        for position in range(limit):
            output = model(**inputs, decoder_input_ids=step, use_cache=True)
            logits = output.logits[:, -1]
            check_finite(logits, batch, "logits")
            logits[:, self._never if position else self._never_first] = -torch.inf
            step = logits.argmax(-1).masked_fill(ended, self._end)[:, None]
            written.append(step)
            ended |= step[:, 0] == self._end
            if bool(ended.all()):
                break
            inputs = {"encoder_outputs": (output.encoder_last_hidden_state,), "past_key_values": output.past_key_values}
        return [normalise(text) for text in self._tokenizer.batch_decode(torch.cat(written, 1), skip_special_tokens=True)]

    def _seconds(self, split: Split) -> list[float]:
        return [len(clip) / self.sampling_rate for clip in self._clips[split]]

    def _batch(self, split: Split, rows: Sequence[int]) -> SpeechBatch:
        clips = [self._clips[split][i] for i in rows]
        features = self._extract(clips, sampling_rate=self.sampling_rate, return_tensors="pt").input_features[..., : self._frames]
        texts = [self._tokenizer.encode(" " + self._texts[split][i].strip(), add_special_tokens=False) for i in rows]
        start = len(self._prompt) - 1  # the last token of the prompt predicts the first one of the text
        length = start + 1 + max(map(len, texts))
        inputs = torch.full((len(texts), length), self._end)
        targets = torch.full((len(texts), length), IGNORED)
        for row, text in enumerate(texts):
            inputs[row, : start + 1 + len(text)] = torch.tensor(self._prompt + text)
            targets[row, start : start + len(text) + 1] = torch.tensor([*text, self._end])
        return SpeechBatch(
            {"input_features": features, "decoder_input_ids": inputs},
            targets,
            tuple(rows),
            references=tuple(normalise(self._texts[split][i]) for i in rows),
            seconds=tuple(len(clip) / self.sampling_rate for clip in clips),
        )


def _speech(batch: Batch) -> SpeechBatch:
    if not isinstance(batch, SpeechBatch):
        raise ParedownError("expected a batch of this task's own batches(...), got another one: the word error rate needs its transcripts")
    return batch


def _prompt(model: nn.Module) -> list[int]:
    settings: Any = getattr(model, "generation_config", None)
    prompt = [int(model.config.decoder_start_token_id)]  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    if getattr(settings, "is_multilingual", False):
        prompt += [settings.lang_to_id["<|en|>"], settings.task_to_id["transcribe"]]
    if getattr(settings, "no_timestamps_token_id", None) is not None:
        prompt.append(int(settings.no_timestamps_token_id))
    return prompt
