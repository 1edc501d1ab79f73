"""The data of the four demos."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from paredown.demos import data_file, dinov2, names
from paredown.errors import ParedownError
from paredown.models import LoadedModel
from paredown.tasks.base import Task
from paredown.tasks.classification import ImageClassification, SequenceClassification
from paredown.tasks.language import LanguageModelling
from paredown.tasks.speech import SpeechRecognition

IMAGE_PIXELS = 112  # 8 x 8 patches of 14 px: a quarter of the usual 16 x 16, and what the head was trained on
LM_WINDOW = 256
_CALIBRATION_CLIPS = 20
_CLIP_ORDER_SEED = 0


def load(name: str, loaded: LoadedModel) -> Task:
    """The task of a demo, with its own data.

    Args:
        name: ``demo:sentiment``, ``demo:vision``, ``demo:speech`` or ``demo:lm``.
        loaded: The model that is asked; the demo's own or another one of the same kind.

    Raises:
        ParedownError: If there is no such demo, its data is missing, or the model is of another kind.
    """
    makers: dict[str, Callable[[str, LoadedModel], Task]] = {"sentiment": _sentiment, "vision": _vision, "speech": _speech, "lm": _lm}
    if not name.startswith("demo:") or name.removeprefix("demo:") not in makers:
        known = ", ".join(f"demo:{demo}" for demo in names)
        raise ParedownError(
            f"expected one of the tasks {known}, got {name!r}; make other tasks with the classes of paredown.tasks, or with tasks.custom"
        )
    return makers[name.removeprefix("demo:")](name, loaded)


def _sentiment(name: str, loaded: LoadedModel) -> Task:
    _expect(loaded, name, "ForSequenceClassification")
    with data_file("sentiment", "sentiment.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    calibration, held_out = ([row for row in rows if row["split"] == split] for split in ("calib", "test"))
    return SequenceClassification(
        loaded,
        calibration=[row["text"] for row in calibration],
        calibration_labels=[int(row["label"]) for row in calibration],
        held_out=[row["text"] for row in held_out],
        held_out_labels=[int(row["label"]) for row in held_out],
        max_length=64,
        batch_size=50,
        name=name,
        label="Sentiment of movie reviews",
        default_samples={"calibration": 256, "held_out": 500},
    )


def _vision(name: str, loaded: LoadedModel) -> Task:
    _expect(loaded, name, "ForImageClassification")
    with np.load(data_file("vision", "fashion_mnist_small.npz")) as data:
        arrays = {key: torch.from_numpy(data[key]) for key in data.files}
    return ImageClassification(
        loaded,
        calibration=arrays["calib_x"],
        calibration_labels=arrays["calib_y"].long(),
        held_out=arrays["test_x"],
        held_out_labels=arrays["test_y"].long(),
        prepare=enlarged,
        batch_size=32,
        name=name,
        label="Kinds of clothes (Fashion-MNIST)",
        default_samples={"calibration": 64, "held_out": 256},
    )


def enlarged(images: Tensor) -> Tensor:
    """Pixel values [n, 3, 112, 112] of grey images [n, 28, 28], 0 to 255: bicubic, normalised as DINOv2 expects."""
    grey = nn.functional.interpolate(images.float()[:, None] / 255, (IMAGE_PIXELS, IMAGE_PIXELS), mode="bicubic", align_corners=False)
    mean, std = (torch.tensor(values)[:, None, None] for values in (dinov2.MEAN, dinov2.STD))
    return (grey.clamp(0, 1).expand(-1, 3, -1, -1) - mean) / std


def _speech(name: str, loaded: LoadedModel) -> Task:
    with np.load(data_file("speech", "asr_prompts_small.npz")) as data:
        ends = np.cumsum(data["lengths"])
        clips = [doubled(wave) for wave in np.split(expand_mulaw(data["mulaw"]), ends[:-1])]
        texts = [str(text) for text in data["texts"]]
    # The file is sorted by duration; in a drawn order, both splits and any first few clips of them have long and short ones.
    order = np.random.default_rng(_CLIP_ORDER_SEED).permutation(len(clips))
    calibration, held_out = order[:_CALIBRATION_CLIPS], order[_CALIBRATION_CLIPS:]
    return SpeechRecognition(
        loaded,
        calibration=[clips[i] for i in calibration],
        calibration_transcripts=[texts[i] for i in calibration],
        held_out=[clips[i] for i in held_out],
        held_out_transcripts=[texts[i] for i in held_out],
        batch_size=20,
        name=name,
        label="Recognition of telephone prompts",
        default_samples={"calibration": _CALIBRATION_CLIPS, "held_out": 60},
    )


def expand_mulaw(codes: np.ndarray) -> np.ndarray:
    """Samples from -1 to 1 of mu-law codes 0 to 255 (mu = 255): sign(y) (256^|y| - 1) / 255 with y = code / 127.5 - 1."""
    y = codes.astype(np.float32) / 127.5 - 1
    return np.sign(y) * (256 ** np.abs(y) - 1) / 255


def doubled(wave: np.ndarray) -> np.ndarray:
    """Twice the sampling rate (8 to 16 kHz), by linear interpolation."""
    samples = torch.from_numpy(wave.astype(np.float32))[None, None]
    return nn.functional.interpolate(samples, scale_factor=2, mode="linear", align_corners=False)[0, 0].numpy()


def _lm(name: str, loaded: LoadedModel) -> Task:
    _expect(loaded, name, "ForCausalLM")
    texts = [
        data_file("text", file).read_text(encoding="utf-8") for file in ("austen_persuasion_calib.txt", "austen_northanger_abbey_test.txt")
    ]
    calibration, held_out = (re.sub(r"(?<!\n)\n(?!\n)", " ", text) for text in texts)  # the line breaks inside paragraphs
    return LanguageModelling(
        loaded,
        calibration=calibration,
        held_out=held_out,
        window=LM_WINDOW,
        batch_size=4,
        name=name,
        label="Next word in novels by Jane Austen",
        default_samples={"calibration": 16, "held_out": 8},
    )


def _expect(loaded: LoadedModel, task: str, kind: str) -> None:
    model: Any = loaded.model
    if not type(model).__name__.endswith(kind):
        raise ParedownError(
            f"expected a model ...{kind} for {task}, {loaded.id} is a {type(model).__name__}; load {task} itself or a model of that kind"
        )
