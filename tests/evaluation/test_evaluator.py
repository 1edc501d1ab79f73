from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

from evaluator_setting import INT3, LOW_RANK, ROUNDED, Setting, everywhere, own_task, same, snapshot, task_of
from paredown.apply import Variants
from paredown.errors import ParedownError
from paredown.evaluation import Evaluator
from paredown.layers import weight_of
from paredown.methods import compress
from paredown.specs import KEEP, Scheme
from paredown.tasks import Batch
from seen_layers import seen
from tiny_models import CASES


@pytest.fixture(params=CASES)
def name(request):
    return request.param


@pytest.mark.parametrize("schemes", [(INT3,), (INT3, KEEP, ROUNDED, LOW_RANK)], ids=["one scheme", "many schemes"])
def test_a_plan_gives_what_its_weights_give_when_they_are_put_in_place(name, schemes):
    setting = Setting(name)
    plan = everywhere(setting.layers, *schemes)
    before = snapshot(setting.model)
    for fast, slow in zip(setting.fast(plan), setting.slowly(plan), strict=True):
        torch.testing.assert_close(fast, slow, rtol=0, atol=5e-6 * float(slow.abs().max()))
    assert same(snapshot(setting.model), before)


def test_ranges_of_inputs_that_calibration_found_are_used():
    static = Scheme.parse("int4g32a8static")

    def kept(layer, scheme):  # as a study does it that has lost its files: from the model, with gradients
        parameter = torch.ones((), requires_grad=True)
        setting.model(**CASES["bert"].inputs()).logits.sum().mul(parameter).backward()
        return compress(weight_of(setting.model, layer), scheme, seen(*layer.shape, seed=5))

    setting = Setting("bert")
    linear = [layer for layer in setting.layers if layer.kind == "linear"]
    setting.variants = Variants(setting.model, setting.layers, kept=kept)
    setting.evaluator = Evaluator(setting.model, setting.layers, setting.task, setting.batches, setting.variants)
    plan = everywhere(linear, static)
    for fast, slow in zip(setting.fast(plan), setting.slowly(plan), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)
    dynamic = setting.fast(everywhere(linear, Scheme.parse("int4g32a8")))
    assert not torch.allclose(fast, dynamic[-1], rtol=1e-3)


def test_weights_made_here_may_be_used_where_gradients_are_taken():
    setting = Setting("bert")
    plan = everywhere(setting.layers, INT3)
    setting.fast(plan)
    with setting.variants.applied(plan):
        setting.model(**CASES["bert"].inputs()).logits.sum().backward()
    assert setting.model.get_submodule(setting.layers[4].name).weight.grad.abs().sum() > 0


def test_in_float64_nothing_differs_at_all(name):
    if name == "wav2vec2":
        pytest.skip("its mask of padding is float32")
    setting = Setting(name, dtype=torch.float64)
    plan = everywhere(setting.layers, INT3, KEEP, LOW_RANK)
    assert all(map(torch.equal, setting.fast(plan), setting.slowly(plan)))


def test_single_changes_of_a_recorded_plan_are_bitwise_those_of_a_full_run(name):
    setting = Setting(name)
    parent = everywhere(setting.layers, INT3, KEEP, ROUNDED)
    assert all(map(torch.equal, setting.fast(parent, keep=True), setting.in_full(parent)))
    for layer in setting.layers[:: len(setting.layers) // 4] + setting.layers[-1:]:
        child = parent | {layer.name: LOW_RANK}
        assert all(map(torch.equal, setting.fast(child), setting.in_full(child))), layer.name
    assert setting.evaluator.runs_in_full == ""
    assert setting.evaluator.blocks_given_back > 0


def test_only_the_blocks_before_the_change_are_given_back():
    setting = Setting("bert")
    setting.fast({}, keep=True)
    for name, blocks in {
        "embeddings.word_embeddings": 0,
        "encoder.layer.0.output.dense": 0,
        "encoder.layer.1.attention.self.query": 1,
    }.items():
        before = setting.evaluator.blocks_given_back
        setting.fast({f"bert.{name}": INT3})
        assert setting.evaluator.blocks_given_back - before == blocks * len(setting.batches)


def test_a_change_behind_the_blocks_runs_none_of_them():
    setting = Setting("bert")
    setting.fast({}, keep=True)
    setting.fast({"bert.pooler.dense": INT3})
    assert setting.evaluator.blocks_given_back == 2 * 2


def test_a_tied_output_layer_counts_from_where_its_table_is_read():
    setting = Setting("whisper")  # the decoder's table comes after the encoder's two blocks
    setting.fast({}, keep=True)
    child = {"model.decoder.embed_tokens": INT3}
    assert all(map(torch.equal, setting.fast(child), setting.in_full(child)))
    assert setting.evaluator.blocks_given_back >= 2 * 2
    other = Setting("qwen2")
    other.fast({}, keep=True)
    other.fast({"model.embed_tokens": INT3})
    assert other.evaluator.blocks_given_back == 0


def test_the_recorded_plan_that_agrees_longest_is_used():
    setting = Setting("bert")
    first, last = setting.layers[3].name, setting.layers[-2].name
    parent = {first: INT3}
    setting.fast({}, keep=True)
    setting.fast(parent, keep=True)
    before = setting.evaluator.blocks_given_back
    child = parent | {last: INT3}
    assert all(map(torch.equal, setting.fast(child), setting.in_full(child)))
    assert setting.evaluator.blocks_given_back - before == 2  # one block of each batch, and not none


def test_batches_of_a_callers_own_are_told_apart():
    setting = Setting("bert")
    some = [Batch({k: v[:1] for k, v in setting.batches[1].inputs.items()}, None, (7,))]
    setting.fast({}, keep=True)
    child = {setting.layers[-1].name: INT3}
    [few] = setting.fast(child, batches=some)
    assert few.shape[0] == 1
    torch.testing.assert_close(few, setting.in_full(child)[1][:1], rtol=1e-4, atol=1e-5)


class TestModelsThatCanNotBeCut:
    def test_a_cache_of_keys_and_values(self):
        setting = Setting("llama", task=task_of("llama", logits=lambda model, batch: model(**batch.inputs).logits))
        plan, child = everywhere(setting.layers, INT3), {setting.layers[-1].name: INT3}
        setting.fast({}, keep=True)
        assert all(map(torch.equal, setting.fast(child), setting.in_full(child)))
        torch.testing.assert_close(setting.fast(plan), setting.slowly(plan), rtol=1e-4, atol=1e-5)
        assert setting.evaluator.blocks_given_back == 0
        assert "DynamicCache" in setting.evaluator.runs_in_full

    def test_blocks_that_speak_behind_their_arguments(self):
        class Block(nn.Module):
            def __init__(self, memory):
                super().__init__()
                self.inner, self.memory = nn.Linear(32, 32), memory

            def forward(self, x):
                self.memory.append(self.inner(x).sum())
                return torch.tanh(self.inner(x)) + 1e-2 * sum(self.memory[-2:])

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                memory = []
                self.layers = nn.ModuleList(Block(memory) for _ in range(3))
                self.memory = memory

            def forward(self, x):
                self.memory.clear()
                for block in self.layers:
                    x = block(x)
                return x

        task = own_task()
        setting = Setting(model=Model().eval(), task=task)
        setting.fast({}, keep=True)
        child = {"layers.2.inner": INT3}
        assert all(map(torch.equal, setting.fast(child), setting.in_full(child)))
        assert "passes by the blocks' arguments" in setting.evaluator.runs_in_full

    def test_blocks_that_are_called_otherwise_the_next_time(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers, self.backwards = nn.ModuleList(nn.Sequential(nn.Linear(32, 32), nn.Tanh()) for _ in range(3)), False

            def forward(self, x):
                for block in reversed(self.layers) if self.backwards else self.layers:
                    x = block(x)
                return x

        setting = Setting(model=Model().eval(), task=own_task())
        setting.fast({}, keep=True)
        setting.model.backwards = True
        child = {"layers.1.0": INT3}
        for fast, slow in zip(setting.fast(child), setting.slowly(child), strict=True):
            torch.testing.assert_close(fast, slow)
        assert setting.evaluator.blocks_given_back == 0
        assert "does not call its blocks alike" in setting.evaluator.runs_in_full

    def test_a_model_without_blocks(self):
        setting = Setting(model=nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 4)).eval(), task=own_task())
        setting.fast({}, keep=True)
        assert setting.fast({"1": INT3})
        assert setting.evaluator.runs_in_full == "the model has no repeated blocks"


def test_a_weight_that_is_used_without_its_module_is_put_in_place():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.inner = nn.Linear(32, 64, bias=False), nn.Linear(32, 32)

        def forward(self, x):
            return self.inner(x) @ self.table.weight.T

    for precision, tolerance in (("float32", 1e-5), ("bfloat16", 0.2)):
        setting = Setting(model=Model().eval(), task=own_task(), precision=precision)
        plan = {"table": INT3, "inner": ROUNDED}
        for fast, slow in zip(setting.fast(plan), setting.slowly(plan), strict=True):
            torch.testing.assert_close(fast, slow, rtol=0, atol=tolerance)


def test_a_weight_that_is_read_unforeseen_is_refused_and_never_another_plans():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.late = nn.Linear(32, 32), False

        def forward(self, x):
            return x @ self.inner.weight.T if self.late else self.inner(x)

    setting = Setting(model=Model().eval(), task=own_task())
    setting.fast({})
    setting.model.late = True
    with pytest.raises(ParedownError, match="NaN"):
        setting.fast({"inner": INT3})


def test_a_forward_pass_that_somebody_replaced_is_kept():
    setting = Setting("bert")
    module = setting.model.get_submodule(setting.layers[4].name)
    plain = module.forward
    module.forward = lambda input: 2 * plain(input)
    plan = everywhere(setting.layers, INT3, ROUNDED)
    for fast, slow in zip(setting.fast(plan), setting.slowly(plan), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)
    assert "forward" in module.__dict__


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_model_comes_back_after_an_exception(error, precision):
    calls = []

    def answer(model, batch):
        if calls:
            raise error
        return model(**batch.inputs).logits

    setting = Setting("bert", task=task_of("bert", logits=answer), precision=precision)
    before = snapshot(setting.model)
    setting.fast({}, keep=True)
    calls.append(1)
    with pytest.raises(error):
        setting.fast(everywhere(setting.layers, INT3))
    assert same(snapshot(setting.model), before)
    calls.clear()
    assert setting.fast({})


class TestMemory:
    def test_weights_stay_within_their_limit_and_the_rest_is_made_again(self):
        setting = Setting("llama", weight_bytes=50_000)
        plan, other = everywhere(setting.layers, INT3), everywhere(setting.layers, ROUNDED)
        made = []
        for schemes in (plan, other, plan):
            for fast, slow in zip(setting.fast(schemes), setting.slowly(schemes), strict=True):
                torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)
            assert 25_000 < setting.evaluator.weights.bytes <= 50_000
            made.append(setting.evaluator.weights.made)
        once = len(setting.layers)
        assert made[0] < 2 * once  # what fits of a plan is made once for both batches
        assert made[0] > once

    def test_what_is_kept_is_made_once(self):
        setting = Setting("bert")
        plan = everywhere(setting.layers, INT3)
        for _ in range(3):
            setting.fast(plan)
        assert setting.evaluator.weights.made == len(setting.layers)
        setting.evaluator.clear()
        assert setting.evaluator.weights.bytes == 0
        setting.fast(plan)
        assert setting.evaluator.weights.made == 2 * len(setting.layers)

    @pytest.mark.parametrize("limit", [0, 4_000, 9_000, 30_000])
    def test_outputs_stay_within_theirs_and_what_is_left_is_right(self, limit):
        setting = Setting("bert", prefix_bytes=limit)  # a block gives 2 x 7 x 64 floats, 3584 bytes
        plans = [{}, {setting.layers[3].name: INT3}, {setting.layers[-2].name: INT3}]
        for plan in plans + [plan | {setting.layers[-1].name: ROUNDED} for plan in plans]:
            assert all(map(torch.equal, setting.fast(plan, keep=True), setting.in_full(plan)))
            assert setting.evaluator.prefix_bytes <= limit
        assert (setting.evaluator.blocks_given_back > 0) == (limit > 0)

    def test_limits_are_checked(self):
        with pytest.raises(ParedownError, match="limits of at least 0"):
            Setting("bert", prefix_bytes=-1)


def test_threads_wait_for_each_other():
    setting = Setting("bert")
    plans = [everywhere(setting.layers, INT3), everywhere(setting.layers, ROUNDED), {}]
    expected = [setting.fast(plan) for plan in plans]
    wrong: list[int] = []

    def work(index):
        for step in range(6):
            plan = (index + step) % 3
            if not all(map(torch.equal, setting.fast(plans[plan], keep=step % 2 == 0), expected[plan])):
                wrong.append(plan)
            with setting.variants.applied(plans[plan]):
                pass

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_unknown_layers_are_refused():
    setting = Setting("bert")
    with pytest.raises(ParedownError, match="did you mean"):
        setting.fast({"bert.pooler.dens": INT3})


def test_a_task_with_a_metric_alone_is_run_in_full():
    def metric(model):
        return float(model(**CASES["bert"].inputs()).logits.abs().sum())

    task = task_of("bert", logits=None, loss=lambda model, batch: model(**batch.inputs).logits.sum(1))
    task._metric = metric
    setting = Setting("bert", task=task)
    plan = everywhere(setting.layers, INT3)
    with setting.variants.applied(plan), torch.inference_mode():
        expected = metric(setting.model)
    np.testing.assert_allclose(setting.evaluator.observe(plan, keep=True).scores.value(), expected, rtol=1e-5)
    assert "no predictions" in setting.evaluator.runs_in_full
