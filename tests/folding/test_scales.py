"""Scales that are found are folded, leave the function, and leave less error than none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from paredown.errors import ParedownError
from paredown.folding import Folding, find_foldings, relative_change, round_, scale_, seen_by
from paredown.folding.inputs import Seen
from paredown.layers import find_layers, weight_of
from paredown.methods import dequantize, quantize
from paredown.specs import WeightFormat
from paredown.tasks import Batch
from tiny_models import CASES

FORMAT = WeightFormat(3, 32)


def scaled(family, method, dtype="float32"):
    """A model with and without scales, what was done, and what the readers saw."""
    plain, model = (CASES[family].build().requires_grad_(False) for _ in range(2))
    inputs = CASES[family].inputs()
    layers = {layer.name: layer for layer in find_layers(model, dtype=dtype)}
    found = find_foldings(model, list(layers.values()), lambda: model(**inputs).logits)
    batch = Batch(inputs, None, (0, 1))
    seen = seen_by(model, layers, found.foldings, [batch], lambda batch: model(**batch.inputs))
    done = scale_(model, layers, found.foldings, seen, method, FORMAT)
    return plain, model, layers, done, seen, plain(**inputs).logits, lambda: model(**inputs).logits


@pytest.mark.parametrize("method", ["awq", "smoothquant"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "vit", "whisper", "t5"])
def test_scales_leave_the_function_as_it_is(family, method):
    *_, layers, done, _, before, after = scaled(family, method)
    assert relative_change(before, after()) < 1e-5
    for each in done:
        index = each.folding.index(len(each.scaling.scale))
        assert len(index) == layers[each.folding.readers[0]].shape[1]
        shared = torch.zeros(int(index.max()) + 1).scatter_(0, index, each.scaling.scale)
        assert torch.equal(shared[index], each.scaling.scale)


@pytest.mark.parametrize("family", ["llama", "gpt2", "vit", "whisper", "t5"])
def test_awq_leaves_at_most_the_output_error_of_no_scale(family):
    plain, model, layers, done, seen, *_ = scaled(family, "awq")
    before = after = 0.0
    for each in done:
        before += each.scaling.errors[0]
        after += min(each.scaling.errors)
        assert min(each.scaling.errors) <= each.scaling.errors[0]
        # the error that the search saw is the one of the model as it is now: its inputs are those of the moment, divided by s
        moment = (seen[each.folding].moment / each.scaling.scale / each.scaling.scale[:, None]).float()
        error = 0.0
        for name in each.folding.readers:
            weight = weight_of(model, layers[name]).float()
            if any(other.folding.source == name for other in done):  # its rows were divided before the norm's scale was searched
                assert not torch.equal(weight, weight_of(plain, layers[name]))
            change = dequantize(quantize(weight, FORMAT)) - weight
            error += float((change @ moment * change).sum())
        assert error == pytest.approx(min(each.scaling.errors), rel=1e-3)
    assert after < before


def test_what_readers_see_are_the_inputs_of_real_tokens():
    model, inputs = CASES["llama"].build().requires_grad_(False), CASES["llama"].inputs()
    layers = {layer.name: layer for layer in find_layers(model)}
    folding = Folding("model.layers.0.input_layernorm", "norm", tuple(f"model.layers.0.self_attn.{part}_proj" for part in "qkv"))
    seen = seen_by(model, layers, [folding], [Batch(inputs, None, (0, 1))], lambda batch: model(**batch.inputs))[folding]
    rows = model.model.layers[0].input_layernorm(model.model.embed_tokens(inputs["input_ids"]))[inputs["attention_mask"].bool()]
    assert torch.allclose(seen.moment, (rows.T @ rows).double() / len(rows), atol=1e-6)
    assert torch.equal(seen.largest, rows.abs().amax(0))


def test_dead_inputs_and_a_checkpoint_in_half_precision_keep_finite_weights():
    model, inputs = CASES["llama"].build().requires_grad_(False), CASES["llama"].inputs()
    layers = {layer.name: layer for layer in find_layers(model, dtype="float16")}
    model.model.layers[0].mlp.up_proj.weight[:7] = 0
    folding = Folding("model.layers.0.mlp.up_proj", "rows", ("model.layers.0.mlp.down_proj",))
    for tensor in (model.model.layers[0].mlp.up_proj.weight, model.model.layers[0].mlp.down_proj.weight):
        tensor.copy_(tensor.half())
    before = model(**inputs).logits
    seen = seen_by(model, layers, [folding], [Batch(inputs, None, (0, 1))], lambda batch: model(**batch.inputs))
    [done] = scale_(model, layers, [folding], seen, "awq", FORMAT)
    assert "7 inputs without activation" in done.scaling.note
    round_(model, layers, [folding])
    for name in (folding.source, *folding.readers):
        weight = weight_of(model, layers[name])
        assert torch.equal(weight, weight.half().float())
    assert relative_change(before, model(**inputs).logits) < 1e-3


def test_inputs_that_are_not_finite_and_awq_without_a_format_are_refused():
    model = CASES["llama"].build().requires_grad_(False)
    layers = {layer.name: layer for layer in find_layers(model)}
    folding = Folding("model.layers.0.mlp.up_proj", "rows", ("model.layers.0.mlp.down_proj",))
    bad = Seen(torch.full((96, 96), torch.nan, dtype=torch.float64), torch.full((96,), torch.inf))
    with pytest.raises(ParedownError, match="AWQ searches the scales for an int format"):
        scale_(model, layers, [folding], {folding: bad}, "awq")
    for method in ("awq", "smoothquant"):
        with pytest.raises(ParedownError, match=r"up_proj → down_proj: .*finite"):
            scale_(model, layers, [folding], {folding: bad}, method, FORMAT)
    assert replace(folding, offset=3).index(2).tolist() == [3, 4]
