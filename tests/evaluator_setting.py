"""A tiny model, its task, an evaluator, and the slow way beside it."""

from __future__ import annotations

from functools import cached_property

import torch

from paredown.apply import Variants
from paredown.evaluation import Evaluator, observe
from paredown.layers import find_layers
from paredown.specs import Scheme
from paredown.tasks import Batch, custom
from tiny_models import CASES

INT3 = Scheme.parse("int3g32")
ROUNDED = Scheme.parse("int4g32a8")
LOW_RANK = Scheme.parse("int3g32+svd4:8")
CACHELESS = {"gpt2", "llama", "qwen2", "qwen3", "mistral", "whisper", "t5"}


def logits_of(name):
    options = {"use_cache": False} if name in CACHELESS else {}
    return lambda model, batch: model(**batch.inputs, **options).logits


def task_of(name, batches=2, **others):
    """A task of as many equal batches with other token ids, pixels or sounds in each."""
    made = []
    for seed in range(batches):
        inputs = CASES[name].inputs()
        for key, tensor in inputs.items():
            if tensor.is_floating_point():
                inputs[key] = tensor + 0.1 * seed
            elif "ids" in key:
                inputs[key] = (tensor + seed) % 100 + 3
        made.append(Batch(inputs, None, (2 * seed, 2 * seed + 1)))
    logits = others.pop("logits", logits_of(name))
    return custom(lambda model: 1.0, batches=made, calibration=made, higher_is_better=True, logits=logits, **others)


class Setting:
    """A tiny model, its task, an evaluator, and the slow way: `Variants` and plain runs."""

    def __init__(self, name="bert", *, dtype=torch.float32, model=None, task=None, **options):
        self.model = (CASES[name].build() if model is None else model).to(dtype)
        self.task = task or task_of(name)
        self.batches = self.task.batches("held_out")
        if dtype == torch.float64:
            for batch in self.batches:
                batch.inputs.update({k: v.to(dtype) for k, v in batch.inputs.items() if v.is_floating_point()})
        self.layers = find_layers(self.model)
        self.variants = Variants(self.model, self.layers)
        self.evaluator = Evaluator(self.model, self.layers, self.task, self.batches, self.variants, **options)

    def slowly(self, schemes):
        with self.variants.applied(schemes):
            return logits(observe(self.model, self.task, self.batches))

    def fast(self, schemes, **options):
        return logits(self.evaluator.observe(schemes, **options))

    def in_full(self, schemes):
        """By an evaluator that records nothing."""
        return logits(self.forgetful.observe(schemes))

    @cached_property
    def forgetful(self):
        return Evaluator(self.model, self.layers, self.task, self.batches, self.variants, precision=self.evaluator.precision)


def logits(observation):
    return [p.logits for p in observation.predictions]


def snapshot(model):
    modules = {name: set(module.__dict__) for name, module in model.named_modules()}
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, modules, hooks


def same(first, second):
    return first[1:] == second[1:] and all(torch.equal(first[0][name], second[0][name]) for name in first[0])


def everywhere(layers, *schemes):
    return {layer.name: schemes[i % len(schemes)] for i, layer in enumerate(layers)}


def own_task(width=32):
    batches = [Batch({"x": torch.randn(3, width, generator=torch.Generator().manual_seed(seed))}, None, (seed,) * 3) for seed in range(2)]
    return custom(
        lambda model: 1.0, batches=batches, calibration=batches, higher_is_better=True, logits=lambda model, batch: model(batch.inputs["x"])
    )
