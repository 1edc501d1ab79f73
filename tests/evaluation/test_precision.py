"""The evaluator in bfloat16 and on packed codes: near, and named so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evaluator_setting import INT3, LOW_RANK, ROUNDED, Setting, everywhere, own_task, same, snapshot
from paredown.errors import ParedownError
from paredown.evaluation import APPROXIMATE, EMULATED, compare
from paredown.kernels.cpu.library import load
from paredown.specs import KEEP, Plan, Scheme
from tiny_models import CASES


@pytest.fixture(params=CASES)
def name(request):
    return request.param


def test_in_bfloat16_answers_are_near_and_named_so(name):
    setting = Setting(name, precision="bfloat16")
    plan = everywhere(setting.layers, INT3, KEEP, LOW_RANK)
    before = snapshot(setting.model)
    parent = setting.fast(plan, keep=True)
    for fast, slow in zip(parent, setting.slowly(plan), strict=True):
        assert fast.dtype == torch.float32
        assert float((fast - slow).norm() / slow.norm()) < 0.03
        assert not torch.equal(fast, slow)
    child = plan | {setting.layers[-2].name: ROUNDED}
    assert all(map(torch.equal, setting.fast(child), setting.in_full(child)))
    assert same(snapshot(setting.model), before)
    assert all(parameter.dtype == torch.float32 for parameter in setting.model.parameters())
    assert setting.evaluator.kernel == APPROXIMATE


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "whisper"])
def test_on_our_kernels_answers_are_near_and_named_so(name):
    if load()[0] is None:
        pytest.skip("there is no compiler")
    setting = Setting(name, precision="int8")
    plan = everywhere(setting.layers, Scheme.parse("int8g32"), INT3, KEEP, ROUNDED, LOW_RANK, Scheme.parse("nf4g32"), Scheme.parse("2:4"))
    before = snapshot(setting.model)
    parent = setting.fast(plan, keep=True)
    for fast, slow in zip(parent, setting.slowly(plan), strict=True):
        assert float((fast - slow).norm() / slow.norm()) < 0.03
        assert not torch.equal(fast, slow)
    child = plan | {setting.layers[-2].name: INT3}
    assert all(map(torch.equal, setting.fast(child), setting.in_full(child)))
    assert same(snapshot(setting.model), before)
    assert setting.evaluator.kernel.startswith("packed codes on our kernels")
    assert "approximate" in setting.evaluator.kernel


def test_on_our_kernels_variants_take_the_memory_of_their_codes():
    if load()[0] is None:
        pytest.skip("there is no compiler")
    packed, dense = (Setting("bert", precision=precision) for precision in ("int8", "float32"))
    linear = {layer.name: INT3 for layer in packed.layers if layer.kind == "linear"}
    for setting in (packed, dense):
        setting.fast(linear)
        setting.fast(linear)
    kept = sum(layer.shape[0] * layer.shape[1] * 4 for layer in dense.layers if layer.name not in linear)
    assert packed.evaluator.weights.bytes - kept < 0.25 * (dense.evaluator.weights.bytes - kept)


def test_a_model_that_can_not_run_in_bfloat16_is_refused():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(32, 32)
            self.register_buffer("fixed", torch.eye(32))

        def forward(self, x):
            return self.inner(x) @ self.fixed

    setting = Setting(model=Model().eval(), task=own_task(), precision="bfloat16")
    with pytest.raises(ParedownError, match=r"Model can't run in bfloat16: .*; evaluate it in float32"):
        setting.fast({})


def test_measurements_say_what_multiplied_the_weights():
    setting = Setting("bert")
    assert setting.evaluator.kernel == "dequantized float32 weights, packed by oneDNN (emulated)"
    assert Setting("bert", dtype=torch.float64).evaluator.kernel == EMULATED
    approximate = Setting("bert", precision="bfloat16").evaluator
    found = compare(
        approximate.observe({}),
        approximate.observe({}),
        setting.task,
        Plan("m", "d", {}, 1),
        split="held_out",
        data_digest="",
        kernel=approximate.kernel,
    )
    assert "approximate" in found.kernel
    assert found.kl == 0
