"""Activations that are computed in the call of the layer before them, where nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from paredown.apply import compress_
from paredown.kernel_modules import KernelEmbedding, KernelLinear, activation_of, fuse_activations_, run_on_kernels_
from paredown.kernels.cpu.library import load
from paredown.layers import find_layers
from paredown.specs import LayerRef, Scheme
from tiny_models import CASES

FUSED = {
    **dict.fromkeys(("bert", "roberta"), ("intermediate.dense", "gelu")),
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral"), ("mlp.gate_proj", "silu")),
    **dict.fromkeys(("vit", "dinov2", "whisper"), ("fc1", "gelu")),
    "distilbert": ("ffn.lin1", "gelu"),
    "gpt2": ("mlp.c_fc", "gelu_tanh"),
    "wav2vec2": ("intermediate_dense", "gelu"),
    "t5": ("DenseReluDense.wi", "relu"),
}


def output(model, case):
    with torch.inference_mode():
        out = model(**case.inputs())
    return next(value for value in (getattr(out, name, None) for name in ("logits", "last_hidden_state")) if value is not None)


def packed(case, scheme="int4g16"):
    model = case.build().eval()
    layers = find_layers(model)
    compress_(model, layers, {layer.name: Scheme.parse(scheme) for layer in layers if layer.kind != "embedding"})
    return model


@pytest.mark.parametrize("family", sorted(CASES))
def test_the_activation_of_each_mlp_is_fused_and_the_model_computes_the_same(family):
    plain, fused = packed(CASES[family]), packed(CASES[family])
    run_on_kernels_(plain, "float32", fuse=False)
    chosen = run_on_kernels_(fused, "float32")
    end, activation = FUSED[family]
    for name, kernel in chosen.items():
        assert ("fused" in kernel.how) == name.endswith(end)
        assert fused.get_submodule(name).activation == (activation if name.endswith(end) else "none")
    torch.testing.assert_close(output(fused, CASES[family]), output(plain, CASES[family]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "activation"),
    [("gelu", "gelu"), ("gelu_new", "gelu_tanh"), ("gelu_pytorch_tanh", "gelu_tanh"), ("silu", "silu"), ("relu", "relu"), ("quick_gelu", "none"), ("relu2", "none"), ("tanh", "none")],
)  # fmt: skip
def test_an_activation_is_known_by_what_it_computes(name, activation):
    assert activation_of(ACT2FN[name]) == activation


class Mlp(nn.Module):
    """One layer, one activation, and a forward pass of the test's."""

    def __init__(self, forward):
        super().__init__()
        self.up, self.down, self.act, self.run = nn.Linear(32, 48), nn.Linear(48, 32), nn.GELU(), forward

    def forward(self, x):
        return self.run(self, x)


def on_kernels(forward):
    model = nn.ModuleDict({"mlp": Mlp(forward)}).eval()
    layers = [
        LayerRef(f"mlp.{name}", "linear", "fc1", "", tuple(getattr(model["mlp"], name).weight.shape), "float32") for name in ("up", "down")
    ]
    compress_(model, layers, {layer.name: Scheme.parse("int8g16") for layer in layers})
    run_on_kernels_(model, "float32", fuse=False)
    return model


@pytest.mark.parametrize(
    ("forward", "why"),
    [
        (lambda m, x: m.down(m.act(m.up(x)) + m.act(m.up(x))), "it is not applied to the results of one layer, once"),
        (lambda m, x: m.down(m.up(m.act(x))), "it is not applied to the results of one layer, once"),
        (lambda m, x: m.down(m.act(2 * m.up(x))), "it is not applied to the results of one layer, once"),
        (lambda m, x: m.down(m.up(x)), "it is not applied to the results of one layer, once"),
        (lambda m, x: (lambda y: m.down(m.act(y) + y))(m.up(x)), "the outputs would change"),
        (lambda m, x: (lambda y: m.down(y + torch.tanh(y) * m.act(y)))(m.up(x)), "the outputs would change"),
        (lambda m, x: m.down(x), r"Mlp does not run on its first inputs alone (ParedownError)"),
    ],
)
def test_what_is_not_plainly_an_epilogue_stays_as_it_was(forward, why):
    model = on_kernels(forward)
    act, x = model["mlp"].act, torch.randn(2, 5, 32)
    if "does not run" not in why:
        before = model["mlp"](x)
    said = fuse_activations_(model)
    assert list(said) == ["mlp.up"]
    assert said["mlp.up"] == f"gelu not fused: {why}"
    assert model["mlp"].act is act
    assert {module.activation for module in model.modules() if isinstance(module, KernelLinear)} == {"none"}
    if "does not run" not in why:
        assert torch.equal(model["mlp"](x), before)


def test_a_model_in_training_is_left_alone():
    model = on_kernels(lambda m, x: m.down(m.act(m.up(x)))).train()
    assert fuse_activations_(model) == {"mlp.up": "gelu not fused: the model is in training"}


def test_fusing_twice_changes_nothing_more():
    model = on_kernels(lambda m, x: m.down(m.act(m.up(x))))
    assert fuse_activations_(model) == {"mlp.up": "gelu fused"}
    assert fuse_activations_(model) == {}


@pytest.mark.parametrize("scheme", ["int4g16", "int8g32"])
def test_a_tied_table_is_read_from_the_codes_of_its_layer(scheme):
    if load()[0] is None:
        pytest.skip("there is no compiler")
    case = CASES["qwen2"]
    plain, shared = (case.build().eval() for _ in range(2))
    layers = find_layers(plain)
    for model in (plain, shared):
        compress_(model, layers, {layer.name: Scheme.parse(scheme) for layer in layers})
    run_on_kernels_(shared, "float32")
    table, head = shared.get_input_embeddings(), shared.get_output_embeddings()
    assert isinstance(table, KernelEmbedding)
    assert table.kernel is head.kernel
    assert not any(name.startswith(("model.embed_tokens", "lm_head")) for name in shared.state_dict())
    torch.testing.assert_close(output(shared, case), output(plain, case), rtol=1e-4, atol=1e-5)
    ids = torch.tensor([[0, 5], [7, 5]])
    assert torch.equal(table(ids), plain.get_input_embeddings()(ids))
    assert shared.to(torch.bfloat16).get_input_embeddings()(ids).dtype == torch.bfloat16
