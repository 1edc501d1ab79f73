from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import nn

from paredown import sizes
from paredown.apply import Variants, compress_, parameters_of, state_of, stored_tensors
from paredown.errors import ParedownError
from paredown.kernel_modules import KernelLinear, run_on_kernels_
from paredown.kernels import pack, reference
from paredown.layers import find_layers, weight_of
from paredown.methods import compress, dequantize, quantize
from paredown.methods.activations import quantize_per_token
from paredown.packed_modules import PackedConv1D, PackedEmbedding, PackedLinear
from paredown.specs import KEEP, LayerRef, Scheme, WeightFormat
from tiny_models import CASES

INT3 = Scheme(WeightFormat(3, 32))


def uniform(layers, scheme):
    return {layer.name: scheme for layer in layers}


def logits(model, case):
    with torch.no_grad():
        return next(iter(model(**case.inputs()).values()))


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model, before):
    after = model.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_plan_is_in_place_and_then_gone(case):
    model = case.build()
    layers = find_layers(model)
    before, output = snapshot(model), logits(model, case)
    variants = Variants(model, layers)
    with variants.applied(uniform(layers, INT3)):
        for layer in layers:
            effective, _ = sizes.fit(INT3, layer)
            for name in (layer.name, *layer.tied_to):
                weight = model.get_submodule(name).weight
                weight = weight.T if layer.kind == "conv1d" else weight
                original = before[f"{layer.name}.weight"]
                original = original.T if layer.kind == "conv1d" else original
                assert torch.equal(weight, dequantize(quantize(original, effective.weight)))
        assert not torch.equal(logits(model, case), output)
    assert unchanged(model, before)
    assert torch.equal(logits(model, case), output)


def test_packed_modules_compute_what_the_dequantized_weights_do(case):
    model = case.build()
    layers = find_layers(model)
    schemes = uniform(layers, INT3)
    with Variants(model, layers).applied(schemes):
        expected = logits(model, case)
    compress_(model, layers, schemes)
    for layer in layers:
        assert isinstance(model.get_submodule(layer.name), (PackedLinear, PackedConv1D, PackedEmbedding))
        assert f"{layer.name}.weight" not in model.state_dict()
    torch.testing.assert_close(logits(model, case), expected, rtol=1e-5, atol=1e-6)


def test_a_packed_model_runs_on_kernels_and_computes_the_same(case):
    model = case.build()
    layers = find_layers(model)
    compress_(model, layers, uniform(layers, INT3))
    expected = logits(model, case)
    chosen = run_on_kernels_(model, "float32")
    assert {name for name, module in model.named_modules() if isinstance(module, KernelLinear)} == set(chosen)
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
    torch.testing.assert_close(logits(model, case), expected, rtol=1e-4, atol=1e-5)


def test_the_packed_model_is_smaller_than_the_original():
    case = CASES["bert"]
    model = case.build()
    before = sum(tensor.nbytes for tensor in state_of(model).values())
    layers = find_layers(model)
    compress_(model, layers, uniform(layers, INT3))
    assert sum(tensor.nbytes for tensor in state_of(model).values()) < before / 4


def test_tied_modules_share_the_packed_tensors():
    model = CASES["qwen2"].build()
    layers = find_layers(model)
    [tied] = [layer for layer in layers if layer.tied_to]
    compress_(model, layers, {tied.name: INT3})
    table, head = model.get_submodule(tied.name), model.get_submodule(tied.tied_to[0])
    assert isinstance(table, PackedEmbedding)
    assert isinstance(head, PackedLinear)
    assert table.weight_packed.data_ptr() == head.weight_packed.data_ptr()
    assert torch.equal(table.weight, head.weight)


def test_a_plan_may_name_a_few_layers_and_keep_some():
    model = CASES["bert"].build()
    layers = find_layers(model)
    before = snapshot(model)
    first, second = layers[2].name, layers[3].name
    with Variants(model, layers).applied({first: INT3, second: KEEP}):
        changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == [f"{first}.weight"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_weights_come_back_after_an_exception(error):
    model = CASES["gpt2"].build()
    layers = find_layers(model)
    before = snapshot(model)
    with pytest.raises(error), Variants(model, layers).applied(uniform(layers, INT3)):
        raise error
    assert unchanged(model, before)


def test_plans_may_be_nested():
    model = CASES["bert"].build()
    layers = find_layers(model)
    before = snapshot(model)
    variants = Variants(model, layers)
    with variants.applied(uniform(layers, INT3)):
        outer = snapshot(model)
        with variants.applied({layers[0].name: KEEP}):
            assert torch.equal(weight_of(model, layers[0]), before[f"{layers[0].name}.weight"])
        assert unchanged(model, outer)
    assert unchanged(model, before)


def test_another_thread_waits_for_its_turn():
    model = CASES["bert"].build()
    layers = find_layers(model)
    variants = Variants(model, layers)
    weight, entered = model.get_submodule(layers[0].name).weight, threading.Event()
    original = weight.detach().clone()
    seen = []

    def other():
        entered.set()
        with variants.applied({layers[0].name: KEEP}):
            seen.append(torch.equal(weight, original))

    with variants.applied(uniform(layers, INT3)):
        thread = threading.Thread(target=other)
        thread.start()
        entered.wait()
        thread.join(0.05)
        assert seen == []
    thread.join()
    assert seen == [True]


def test_the_cache_stays_within_its_bounds_and_drops_what_was_unused_longest():
    model = nn.Sequential(*(nn.Linear(32, 32, bias=False) for _ in range(4)))
    layers = find_layers_of(model)
    variants = Variants(model, layers, max_bytes=2 * 32 * 32 * 4)
    first = variants.weight("0", INT3)
    second = variants.weight("1", INT3)
    assert variants.weight("0", INT3) is first
    variants.weight("2", INT3)  # the second one goes
    assert variants.weight("0", INT3) is first
    assert variants.weight("1", INT3) is not second
    assert variants.cached_bytes <= 2 * 32 * 32 * 4
    variants.clear()
    assert variants.cached_bytes == 0
    assert variants.weight("0", INT3) is not first


def find_layers_of(model):
    return tuple(LayerRef(name, "linear", "fc1", "", tuple(module.weight.shape), "float32") for name, module in model.named_children())


def test_a_plan_larger_than_the_cache_is_still_applied():
    model = CASES["bert"].build()
    layers = find_layers(model)
    before = snapshot(model)
    with Variants(model, layers, max_bytes=1).applied(uniform(layers, INT3)):
        assert all(not torch.equal(weight_of(model, layer), before[f"{layer.name}.weight"]) for layer in layers)
    assert unchanged(model, before)


def test_some_rows_are_those_of_the_whole_weight():
    model = CASES["bert"].build()
    layer = next(layer for layer in find_layers(model) if layer.kind == "embedding")
    read = torch.tensor([7, 0, 3])
    for text in ("keep", "int4g32", "int3g32sym-mse", "int4sym-sawb", "int4n4", "int4g32-hqq", "nf4g32", "2:4", "50%", "int8+svd2"):
        scheme = Scheme.parse(text)
        assert torch.equal(
            Variants(model, [layer]).rows(layer.name, scheme, read), Variants(model, [layer]).weight(layer.name, scheme)[read]
        )


def test_what_needs_the_inputs_is_taken_from_those_who_kept_it():
    model = CASES["bert"].build()
    layers = [layer for layer in find_layers(model) if layer.kind == "linear"]
    before, asked = snapshot(model), []
    gptq = Scheme.parse("int3g32-gptq")

    def kept(layer, scheme):
        asked.append((layer.name, scheme))
        return compress(weight_of(model, layer), Scheme(scheme.weight))

    variants = Variants(model, layers, kept=kept)
    with variants.applied({layers[0].name: gptq, layers[1].name: INT3}), variants.applied({layers[0].name: gptq}):
        expected = dequantize(quantize(before[f"{layers[0].name}.weight"], INT3.weight))
        assert torch.equal(weight_of(model, layers[0]), expected)
    assert asked == [(layers[0].name, gptq)]
    assert unchanged(model, before)


def test_inputs_are_rounded_while_a_plan_says_so():
    model = nn.Sequential(nn.Linear(32, 8))
    layers, x = find_layers_of(model), torch.randn(3, 32)
    both, weights = Scheme.parse("int8a4"), Scheme.parse("int8")
    variants, before = Variants(model, layers), model(x)
    with variants.applied({"0": both}):
        rounded = model(x)
        assert torch.equal(rounded, nn.functional.linear(quantize_per_token(x, 4), variants.weight("0", weights), model[0].bias))
        with variants.applied({"0": weights}):
            assert torch.equal(model(x), nn.functional.linear(x, variants.weight("0", weights), model[0].bias))
            with variants.applied({"0": both}):
                assert torch.equal(model(x), rounded)
            assert not torch.equal(model(x), rounded)
        assert torch.equal(model(x), rounded)
    assert torch.equal(model(x), before)
    assert not model[0]._forward_pre_hooks
    compress_(model, layers, {"0": both})
    torch.testing.assert_close(model(x), rounded)


@pytest.mark.parametrize(
    "apply", [lambda m, ls, s: compress_(m, ls, s), lambda m, ls, s: Variants(m, ls).applied(s).__enter__()], ids=["packed", "in place"]
)
class TestRefusals:
    def refused(self, apply, schemes, match, model=None):
        model = CASES["llama"].build() if model is None else model
        layers = find_layers(model)
        before = snapshot(model)
        with pytest.raises(ParedownError, match=match):
            apply(model, layers, schemes)
        after = model.state_dict()
        assert all(torch.equal(after[name].nan_to_num(7), tensor.nan_to_num(7)) for name, tensor in before.items())

    def test_an_unknown_layer_with_those_that_are_close(self, apply):
        schemes = {"model.layers.0.self_attn.q_prj": INT3}
        self.refused(apply, schemes, r"got 'model\.layers\.0\.self_attn\.q_prj'; did you mean model\.layers\.0\.self_attn\.q_proj")

    def test_a_layer_like_no_other(self, apply):
        self.refused(apply, {"0": INT3}, r"got '0'; the model's layers start with model\.embed_tokens")

    def test_weights_that_are_not_finite_with_the_layers_name(self, apply):
        model = CASES["llama"].build()
        name = "model.layers.1.mlp.down_proj"
        with torch.no_grad():
            model.get_submodule(name).weight[3, 5] = float("nan")
        self.refused(
            apply,
            {"model.layers.0.mlp.up_proj": INT3, name: INT3},
            r"model\.layers\.1\.mlp\.down_proj by int3g32: the weight holds NaN",
            model,
        )

    def test_schemes_whose_inputs_nobody_knows(self, apply):
        name = "model.layers.1.mlp.down_proj"
        self.refused(apply, {name: Scheme.parse("int4g32+eora4")}, rf"{name} by int4g32\+eora4: .* not at hand; calibrate the layer")

    def test_a_tied_name_with_the_layer_that_decides(self, apply):
        model = CASES["qwen2"].build()
        self.refused(apply, {"lm_head": INT3}, r"lm_head shares the weight of model\.embed_tokens; give the scheme to that layer", model)


def test_a_module_with_a_forward_pass_of_its_own_is_refused():
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    model = nn.Sequential(Doubled(32, 32), nn.Linear(32, 4))
    with pytest.raises(ParedownError, match="expected 0 to be a plain Linear, Embedding or Conv1D, got Doubled"):
        compress_(model, find_layers_of(model), {"0": INT3})


def test_a_layer_of_another_model_is_refused():
    with pytest.raises(ParedownError, match=r"expected model\.embed_tokens|expected a layer model\.embed_tokens"):
        Variants(CASES["bert"].build(), find_layers(CASES["llama"].build()))


def test_weights_tied_by_storage_alone_are_swapped_together():
    model = nn.Sequential(nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False))
    model[1].weight = nn.Parameter(model[0].weight.data)
    layer = LayerRef("0", "linear", "fc1", "", (32, 32), "float32", tied_to=("1",))
    assert len(parameters_of(model, layer)) == 2
    with Variants(model, (layer,)).applied({"0": INT3}):
        assert torch.equal(model[0].weight, model[1].weight)
        assert len(model[1].weight[0].unique()) <= 8


def test_packed_modules_can_be_copied_and_moved_to_half_precision():
    model = CASES["bert"].build()
    layers = find_layers(model)
    compress_(model, layers, uniform(layers, INT3))
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin, CASES["bert"]), logits(model, CASES["bert"]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("on_kernels", [False, True])
def test_a_cast_changes_what_is_computed_with_and_not_what_is_packed(dtype, on_kernels):
    model = CASES["llama"].build()
    layers = find_layers(model)
    compress_(model, layers, uniform(layers, INT3))
    expected = logits(model, CASES["llama"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "packed" in name or "scale" in name}
    model.to(dtype)
    for name, tensor in before.items():
        assert model.state_dict()[name].dtype is tensor.dtype
        assert torch.equal(model.state_dict()[name], tensor)
    if on_kernels and dtype is not torch.float64:
        run_on_kernels_(model)
    found = logits(model, CASES["llama"])
    assert found.dtype is dtype
    assert torch.nn.functional.cosine_similarity(found.double().flatten(), expected.double().flatten(), dim=0) > 0.999


def test_the_device_has_no_say(device):
    weight = torch.linspace(-1, 1, 64).reshape(2, 32)
    here, there = (pack_of(weight.to(where)) for where in ("cpu", device))
    assert there.tensors["weight_packed"].device.type == torch.device(device).type
    assert torch.equal(here.tensors["weight_packed"], there.tensors["weight_packed"].cpu())
    module = PackedLinear(there, torch.float32)
    assert torch.equal(module.weight.cpu(), reference.dequantize(here))
    assert torch.equal(PackedEmbedding(there, torch.float32)(torch.tensor([1], device=device)).cpu(), module.weight[1:].cpu())


def pack_of(weight):
    return pack(compress(weight, Scheme(WeightFormat(4, 16))))


def test_what_is_stored_counts_shared_tensors_once():
    model = CASES["qwen2"].build()
    names = [tensor.name for tensor in stored_tensors(model)]
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names


def test_what_half_precision_can_not_hold_stays_as_it_is():
    model = nn.Sequential(nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.5, 1.0]]))
        model[0].bias.fill_(1 + 2**-20)
    assert {tensor.name: tensor.dtype for tensor in stored_tensors(model, "float16")} == {"0.weight": "float16", "0.bias": "float32"}
