"""What is written is what is loaded: by plain transformers where it can, by Paredown always, and by no one when it is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from paredown import models, shape_record
from paredown.errors import ParedownError
from paredown.structure import (
    drop_blocks_,
    find_blocks,
    keep_channels_,
    keep_heads_,
    keep_query_key_dimensions_,
    remove_attention_,
    remove_mlp_,
    save,
)
from structure import masked
from tiny_models import CASES


def loaded_model(family, dtype="float32"):
    model = CASES[family].build()
    return models.LoadedModel(family, family, model, None, models.digest(models.distinct_tensors(model)), dtype, 0)


def uniform_(model):
    """Half of the channels everywhere and one block less."""
    for block in find_blocks(model):
        keep_channels_(model, block.mlp, torch.arange(0, block.mlp.channels, 2))
    drop_blocks_(model, [find_blocks(model)[0].path])


def uneven_(model):
    """Something different in every block."""
    first, *_, last = find_blocks(model)
    if "query-key dimensions" not in first.attentions[0].refused:
        kept = torch.tensor([[0, 1, 2, 8, 9, 10]] * first.attentions[0].key_heads)
        keep_query_key_dimensions_(model, first.attentions[0], kept)
    keep_heads_(model, last.attentions[0], torch.tensor([1]))
    keep_channels_(model, first.mlp, torch.arange(40))
    remove_mlp_(model, last.mlp)


def same(model, other, family):
    inputs = CASES[family].inputs()
    torch.testing.assert_close(masked.outputs(other.eval(), inputs), masked.outputs(model, inputs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", sorted(CASES))
def test_an_even_shape_loads_with_plain_transformers(family, tmp_path):
    loaded = loaded_model(family)
    before = sum(parameter.numel() for parameter in loaded.model.parameters())
    uniform_(loaded.model)
    folder = save(loaded, tmp_path / "small")
    assert not (folder / shape_record.FILE).exists()
    plain = type(loaded.model).from_pretrained(folder)
    same(loaded.model, plain, family)
    same(loaded.model, models.load(str(folder)).model, family)
    assert (folder / "model.safetensors").stat().st_size < 4 * before


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "vit", "dinov2"])
def test_fewer_heads_everywhere_load_with_plain_transformers(family, tmp_path):
    loaded = loaded_model(family)
    for block in find_blocks(loaded.model):
        keep_heads_(loaded.model, block.attentions[0], torch.tensor([1]))
    folder = save(loaded, tmp_path / "small")
    same(loaded.model, type(loaded.model).from_pretrained(folder), family)


@pytest.mark.parametrize("family", sorted(CASES))
def test_an_uneven_shape_loads_with_paredown_and_never_without(family, tmp_path):
    loaded = loaded_model(family)
    uneven_(loaded.model)
    folder = save(loaded, tmp_path / "small")
    again = models.load(str(folder))
    same(loaded.model, again.model, family)
    assert again.digest == models.digest(models.distinct_tensors(loaded.model))
    assert shape_record.record_of(again.model) == shape_record.record_of(loaded.model)
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        type(loaded.model).from_pretrained(folder)


def test_transformers_alone_would_make_up_what_is_gone(tmp_path):
    """Why the weights have another name."""
    loaded = loaded_model("llama")
    remove_attention_(loaded.model, find_blocks(loaded.model)[1].attentions[0])
    folder = save(loaded, tmp_path / "small")
    (folder / shape_record.WEIGHTS).rename(folder / "model.safetensors")
    model, info = transformers.LlamaForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert "model.layers.1.self_attn.q_proj.weight" in info["missing_keys"]
    assert model is not None


def test_half_precision_is_stored_in_half_precision(tmp_path):
    loaded = loaded_model("llama", "float16")
    uneven_(loaded.model)
    folder = save(loaded, tmp_path / "small")
    assert {tensor.dtype for tensor in load_file(folder / shape_record.WEIGHTS).values()} == {torch.float16}
    even = loaded_model("llama", "float16")
    uniform_(even.model)
    stored = load_file(save(even, tmp_path / "even") / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert even.model.dtype == torch.float32
    assert models.load(str(tmp_path / "even")).dtype == "float16"


@pytest.fixture
def small(tmp_path):
    loaded = loaded_model("llama")
    uneven_(loaded.model)
    return save(loaded, tmp_path / "small")


def edited(folder: Path, **changes):
    path = folder / shape_record.FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def changed_module(folder, name, **changes):
    modules = json.loads((folder / shape_record.FILE).read_text())["modules"]
    edited(folder, modules=modules | {name: modules[name] | changes})


WRAPPED = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / shape_record.FILE).write_text("{"), "can't be read"),
        (lambda folder: edited(folder, schema=9), "has schema 9, this version of paredown reads 1"),
        (lambda folder: edited(folder, architecture="BertModel"), "is of a BertModel, config.json of a LlamaForCausalLM"),
        (lambda folder: edited(folder, modules={"no.such": {"kind": "empty"}}), "names 'no.such', which a LlamaForCausalLM"),
        (lambda folder: edited(folder, modules={"model.norm": {"kind": "dense", "out": 2, "inputs": 2}}), "is no projection"),
        (lambda folder: edited(folder, attributes={"model": {"forward": 3}}), "changes forward of 'model'"),
        (lambda folder: changed_module(folder, WRAPPED, kind="code"), "can't be read"),
        (lambda folder: changed_module(folder, WRAPPED, index=[5]), "expected 24 rising positions below 64"),
        (lambda folder: changed_module(folder, WRAPPED, out=-1), "-1 is no size"),
        (lambda folder: changed_module(folder, WRAPPED, inputs=32), "have other shapes than paredown_shapes.json"),
        (lambda folder: (folder / shape_record.WEIGHTS).unlink(), "expected model.safetensors"),
        (lambda folder: (folder / shape_record.WEIGHTS).write_bytes(b"cut off"), "can't be read"),
        (lambda folder: without_a_tensor(folder), "missing model.norm.weight"),
    ],
)
def test_a_damaged_or_foreign_record_is_refused_in_words(small, damage, words):
    damage(small)
    with pytest.raises(ParedownError, match=words):
        models.load(str(small))


def without_a_tensor(folder):
    tensors = load_file(folder / shape_record.WEIGHTS)
    tensors.pop("model.norm.weight")
    save_file(tensors, folder / shape_record.WEIGHTS)


def test_a_folder_of_something_else_is_left_alone(tmp_path, small):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    with pytest.raises(ParedownError, match="no shrunk model; choose another folder"):
        save(loaded_model("llama"), tmp_path / "mine")
    loaded = loaded_model("llama")
    uniform_(loaded.model)
    save(loaded, small)  # an earlier one is replaced
    assert not (small / shape_record.WEIGHTS).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "small"]
