"""Fixtures for every test: tiny real models, one thread, fixed seeds, no hub."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# read when triton is imported; TRITON_INTERPRET=0 on a machine with a GPU runs the kernels there
os.environ.setdefault("TRITON_INTERPRET", "1")

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from paredown import models, tasks
from paredown.models import LoadedModel
from paredown.tasks import Task
from paredown.tasks.demos import expand_mulaw

DATA = Path(__file__).resolve().parents[1] / "data"
FIXTURES = DATA / "fixtures"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # spinning threads of several test processes cost more than they bring


@pytest.fixture(autouse=True)
def seeds() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        np.random.seed(0)
        yield


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(scope="session")
def tiny_llama() -> LoadedModel:
    """LLaMA 4x192 on Jane Austen. Shared by the whole session: leave its weights as they are."""
    return models.load(str(FIXTURES / "tiny-llama-austen"))


@pytest.fixture(scope="session")
def tiny_vit() -> LoadedModel:
    """ViT 6x128 on Fashion-MNIST. Shared by the whole session."""
    return models.load(str(FIXTURES / "tiny-vit-fashion"))


@pytest.fixture(scope="session")
def tiny_wav2vec2() -> LoadedModel:
    """wav2vec 2.0 4x96 on synthetic spoken digits. Shared by the whole session."""
    return models.load(str(FIXTURES / "tiny-wav2vec2-digits"))


@pytest.fixture(scope="session")
def tiny_llama_task(tiny_llama: LoadedModel) -> Task:
    calibration, held_out = (
        (DATA / "text" / name).read_text().replace("\n", " ")[:20_000]
        for name in ("austen_persuasion_calib.txt", "austen_northanger_abbey_test.txt")
    )
    sizes = {"calibration": 8, "held_out": 8}
    return tasks.LanguageModelling(tiny_llama, calibration=calibration, held_out=held_out, window=64, default_samples=sizes)


@pytest.fixture(scope="session")
def tiny_vit_task(tiny_vit: LoadedModel) -> Task:
    with np.load(DATA / "vision" / "fashion_mnist_small.npz") as data:
        arrays = {key: torch.from_numpy(data[key]) for key in data.files}

    def prepare(images: Tensor) -> Tensor:
        return (images.float()[:, None] / 255 - 0.286) / 0.353  # mean and deviation of the training set

    return tasks.ImageClassification(
        tiny_vit,
        calibration=arrays["calib_x"],
        calibration_labels=arrays["calib_y"],
        held_out=arrays["test_x"],
        held_out_labels=arrays["test_y"],
        prepare=prepare,
        batch_size=32,
        default_samples={"calibration": 64, "held_out": 256},
    )


@pytest.fixture(scope="session")
def tiny_wav2vec2_task(tiny_wav2vec2: LoadedModel) -> Task:
    with np.load(FIXTURES / "spoken_digits_small.npz") as data:
        waves = torch.from_numpy(expand_mulaw(data["mulaw"][:80]))
        labels = torch.from_numpy(data["y"][:80])
    waves = (waves - waves.mean(1, keepdim=True)) / (waves.std(1, keepdim=True) + 1e-5)
    batches = [{"input_values": waves[i : i + 20], "labels": labels[i : i + 20]} for i in range(0, 80, 20)]

    def accuracy(model: torch.nn.Module) -> float:
        with torch.no_grad():
            right = [(model(input_values=b["input_values"]).logits.argmax(-1) == b["labels"]).float() for b in batches[1:]]
        return float(torch.cat(right).mean())

    return tasks.custom(accuracy, batches=batches[1:], calibration=batches[:1], higher_is_better=True, name="spoken-digits")
