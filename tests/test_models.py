from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from paredown import demos, models
from paredown.errors import ParedownError
from paredown.models import LoadedModel

FIXTURES = Path(__file__).resolve().parents[1] / "data" / "fixtures"
Edit = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a fixture model, to be damaged."""
    return Path(shutil.copytree(FIXTURES / "tiny-vit-fashion", tmp_path / "vit"))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def reconfigure(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_half_precision_checkpoint_computes_in_float32(tiny_llama: LoadedModel) -> None:
    assert tiny_llama.dtype == "float16"
    assert {parameter.dtype for parameter in tiny_llama.model.parameters()} == {torch.float32}
    assert tiny_llama.label == "tiny-llama-austen"
    assert tiny_llama.processor("Catherine was")["input_ids"]


def test_bytes_are_those_of_the_stored_tensors_with_tied_ones_once(tiny_llama: LoadedModel) -> None:
    stored = load_file(FIXTURES / "tiny-llama-austen" / "model.safetensors")
    assert tiny_llama.bytes == sum(tensor.numel() * 2 for tensor in stored.values())
    assert "lm_head.weight" in tiny_llama.model.state_dict()
    assert "lm_head.weight" not in stored


def test_bfloat16_checkpoint(folder: Path) -> None:
    rewrite(folder, lambda weights: weights.update({name: tensor.bfloat16() for name, tensor in weights.items()}))
    loaded = models.load(str(folder))
    assert (loaded.dtype, next(loaded.model.parameters()).dtype) == ("bfloat16", torch.float32)


def test_model_is_in_evaluation_mode_without_gradients(tiny_vit: LoadedModel) -> None:
    assert not tiny_vit.model.training
    assert not any(parameter.requires_grad for parameter in tiny_vit.model.parameters())


def test_digest_follows_the_weights_alone(folder: Path, tiny_vit: LoadedModel) -> None:
    assert models.load(str(folder)).digest == tiny_vit.digest
    assert len(tiny_vit.digest) == 16

    def nudge(weights: dict[str, torch.Tensor]) -> None:
        weights["classifier.bias"][0] += 0.01

    rewrite(folder, nudge)
    assert models.load(str(folder)).digest != tiny_vit.digest


def test_loading_is_silent_and_leaves_the_log_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    before = transformers.utils.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()
    models.load(str(FIXTURES / "tiny-llama-austen"))
    assert capfd.readouterr() == ("", "")
    assert (transformers.utils.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()) == before


def put_nan(folder: Path) -> None:
    rewrite(folder, lambda weights: weights["vit.encoder.layer.0.output.dense.bias"].fill_(float("nan")))


def put_infinity(folder: Path) -> None:
    rewrite(folder, lambda weights: weights["classifier.weight"][3].fill_(float("inf")))


def drop_head(folder: Path) -> None:
    rewrite(folder, lambda weights: weights.pop("classifier.weight"))


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_off(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


CASES: dict[str, tuple[Edit, str]] = {
    "nan": (put_nan, r"expected finite weights, got NaN or infinite values in vit\.\S*layers?\.0\.\S+bias; the checkpoint is damaged"),
    "infinity": (put_infinity, r"got NaN or infinite values in classifier\.weight"),
    "no head": (drop_head, r"it lacks classifier\.weight, which would be random"),
    "only pickle": (only_pickle, r"only as pickle files .*can run any code.*expected model\.safetensors"),
    "cut off": (cut_off, r"cannot be read .*cut off or damaged"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"found no weights; save the model with"),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"expected config\.json in .*found none"),
    "no architecture": (lambda folder: reconfigure(folder, architectures=None), r'expected "architectures" in the config\.json'),
    "unknown architecture": (lambda folder: reconfigure(folder, architectures=["NoSuchModel"]), r"has no class NoSuchModel.*upgrade transformers"),
    "unknown type": (lambda folder: reconfigure(folder, model_type="no-such-type"), r"cannot read the configuration of .*upgrade transformers"),
    "remote code": (
        lambda folder: reconfigure(folder, architectures=["Own"], auto_map={"AutoModel": "own.Own"}),
        r"brings the code of its class Own, which was not run; pass trust_remote_code=True only after reading",
    ),
    "other shapes": (lambda folder: reconfigure(folder, intermediate_size=256), r"do not fit ViTForImageClassification"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), CASES.values(), ids=list(CASES))
def test_what_cannot_be_loaded_is_refused(folder: Path, damage: Edit, message: str) -> None:
    damage(folder)
    with pytest.raises(ParedownError, match=message):
        models.load(str(folder))


def test_remote_code_runs_when_it_is_allowed(folder: Path) -> None:
    (folder / "own.py").write_text(
        "from transformers import ViTForImageClassification\n\n\nclass Own(ViTForImageClassification):\n    pass\n"
    )
    reconfigure(folder, architectures=["Own"], auto_map={"AutoModelForImageClassification": "own.Own"})
    try:
        assert type(models.load(str(folder), trust_remote_code=True).model).__name__ == "Own"
    finally:
        for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
            del sys.modules[name]


@pytest.mark.parametrize("name", ["./no/such/folder", "a/b/c", ""])
def test_a_missing_folder_names_the_ways_out(name: str) -> None:
    with pytest.raises(
        ParedownError, match=r"expected a folder with config\.json.*or one of demo:sentiment, demo:vision, demo:speech, demo:lm"
    ):
        models.load(name)


def test_a_hub_model_without_network_names_the_ways_out() -> None:
    with pytest.raises(
        ParedownError,
        match=r"cannot get nobody/nothing: .*Check the name and the network.*offline, give a local folder or one of demo:sentiment",
    ):
        models.load("nobody/nothing")


def test_unknown_demo_lists_the_names() -> None:
    with pytest.raises(ParedownError, match="expected one of the demos demo:sentiment, demo:vision, demo:speech, demo:lm, got demo:nope"):
        models.load("demo:nope")


@pytest.mark.demo
@pytest.mark.parametrize(
    ("name", "dtype", "parameters"),
    [
        ("sentiment", "float32", 22_713_986),
        ("vision", "float32", 22_064_266),
        ("speech", "float16", 37_376_256),
        ("lm", "float16", 134_515_008),
    ],
)
def test_demo_models(name: str, dtype: str, parameters: int) -> None:
    loaded = models.load(f"demo:{name}")
    assert loaded.id == f"demo:{name}"
    assert loaded.label == demos.find(name).label
    assert loaded.dtype == dtype
    assert loaded.bytes == parameters * (4 if dtype == "float32" else 2)
    assert loaded.processor is not None
    assert ("dequantized 4-bit file" in loaded.notice) == (name == "lm")
