"""What a plan costs to evaluate, beside the loop that everybody writes: copy the model, quantize the copy's weights, run it.

Both do the same work: every layer of a plan has one of four schemes, the same batches, predictions and metric; int8 is packed codes on our
kernels. CPU time, one thread, medians of interleaved rounds. How much is won depends on the tokens: copying and quantizing cost the loop the same whatever is run after,
so that few tokens flatter us, and many leave what the machine's products in bfloat16 or packed float32 are faster than its plain ones (the
first rows). A sweep changes one layer of a plan at a time.
"""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from _rows import Row, interleaved, options, row, show, spent
from paredown import models, tasks
from paredown.apply import Variants
from paredown.curvature import input_moment
from paredown.curvature.surface import LossSurface
from paredown.evaluation import Evaluator, Observation, Screen, compare, observe, output_errors
from paredown.evaluation.weights import product_with
from paredown.layers import find_layers, weight_of
from paredown.methods import compress, dequantize
from paredown.sizes import fit
from paredown.specs import LayerRef, Measurement, Plan, Precision, Scheme
from paredown.tasks.base import IGNORED

SCHEMES = [Scheme.parse(text) for text in ("int8g64", "int4g64", "int3g64", "int2g64")]
BARS: Mapping[Precision, float] = {"float32": 2.2, "bfloat16": 5.0, "int8": 5.0}

Schemes = dict[str, Scheme]


@dataclass(frozen=True)
class Setting:
    """A demo and how much of its held-out split is run.

    Attributes:
        demo: Its name.
        samples: How many.
        every: Layers of a sweep: every so many.
        rounds: Rounds that count.
    """

    demo: str
    samples: int
    every: int
    rounds: int = 3

    @cached_property
    def loaded(self) -> models.LoadedModel:
        """The model."""
        return models.load(self.demo)

    @cached_property
    def task(self) -> tasks.Task:
        """The demo's task."""
        return tasks.load(self.demo, self.loaded)

    @cached_property
    def batches(self) -> Sequence[tasks.Batch]:
        """What is run."""
        return self.task.batches("held_out", self.samples)

    @cached_property
    def layers(self) -> tuple[LayerRef, ...]:
        """All of them."""
        return find_layers(self.loaded.model, dtype=self.loaded.dtype)

    @cached_property
    def variants(self) -> Variants:
        """What makes the weights."""
        return Variants(self.loaded.model, self.layers, max_bytes=2**28)

    @property
    def title(self) -> str:
        """The demo and its tokens, padding included."""
        tokens = sum(batch.inputs["input_ids"].numel() for batch in self.batches)
        return f"{self.demo.removeprefix('demo:')}, {tokens} tokens"

    def evaluator(self, precision: Precision) -> Evaluator:
        """One that knows nothing yet."""
        return Evaluator(self.loaded.model, self.layers, self.task, self.batches, self.variants, precision=precision, weight_bytes=2**32)

    def plan(self, seed: int) -> Schemes:
        """A scheme for every layer, drawn."""
        draw = random.Random(seed)
        return {layer.name: draw.choice(SCHEMES) for layer in self.layers}

    def copied(self, plan: Mapping[str, Scheme]) -> nn.Module:
        """A copy of the model under a plan."""
        model = copy.deepcopy(self.loaded.model)
        for layer in self.layers:
            if layer.name in plan:
                weight = weight_of(model, layer)
                weight.copy_(dequantize(compress(weight, fit(plan[layer.name], layer)[0])))
        return model

    def naive(self, plan: Mapping[str, Scheme]) -> Observation:
        """The loop's body."""
        return observe(self.copied(plan), self.task, self.batches)

    def reordered(self, plan: Mapping[str, Scheme]) -> Observation | None:
        """The loop's body with the channels of gated MLPs in another order, the same function summed otherwise; None where there are none."""
        model = self.copied(plan)
        gated = [module for module in model.modules() if hasattr(module, "gate_proj")]
        for module in gated:
            gate, up, down = (getattr(module, name).weight for name in ("gate_proj", "up_proj", "down_proj"))
            order = torch.randperm(len(gate), generator=torch.Generator().manual_seed(0))
            for weight, moved in ((gate, gate[order]), (up, up[order]), (down, down[:, order])):
                weight.data = moved.detach()
        return observe(model, self.task, self.batches) if gated else None

    def exact(self, plan: Mapping[str, Scheme]) -> torch.Tensor:
        """Logits of the same weights in float64."""
        model, made = self.copied(plan).double(), []
        with torch.inference_mode():
            for batch in self.batches:
                logits = model(**batch.inputs).logits
                counted = slice(None) if batch.targets is None or batch.targets.dim() == 1 else batch.targets != IGNORED
                made.append(logits[counted])
        return torch.cat(made)

    def swapped(self, plan: Mapping[str, Scheme]) -> Observation:
        """The variants in place, plain products."""
        with self.variants.applied(plan):
            return observe(self.loaded.model, self.task, self.batches)

    def measured(self, original: Observation, found: Observation) -> Measurement:
        """As a study measures."""
        return compare(original, found, self.task, Plan("", "", {}, 0), split="held_out", data_digest="")


FEW = 24
"""Samples up to which float64 is waited for."""

QUICK = (Setting("demo:sentiment", 8, 12, rounds=1),)
USUAL = (Setting("demo:sentiment", 24, 4), Setting("demo:sentiment", 500, 19, rounds=1), Setting("demo:lm", 2, 50, rounds=1))


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--quick", action="store_true", help="a few samples of one demo, to see that all runs")
    parser.add_argument("--samples", type=int, nargs="+", help="only the settings of so many samples")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = products()
    settings = [each for each in (QUICK if arguments.quick else USUAL) if arguments.samples is None or each.samples in arguments.samples]
    for setting in settings:
        for part in (plans, sweeps, table, *((agreement, screening) if setting.samples in (8, 500) else ())):
            rows += part(setting)
            show("Evaluation of many plans, one thread, CPU time a plan", rows, arguments.json)


@torch.inference_mode()
def products() -> list[Row]:
    """What this machine makes of one product, 1024 tokens by 1536 x 384."""
    inputs, weight = torch.randn(1024, 384), torch.randn(1536, 384)
    low, packed, packed_low = inputs.bfloat16(), product_with(weight), product_with(weight.bfloat16())
    jobs: dict[str, Callable[[], object]] = {
        "plain": lambda: nn.functional.linear(inputs, weight),
        "packed": lambda: packed(inputs, None),
        "bfloat16": lambda: packed_low(low, None),
    }
    times = interleaved(jobs, 15)
    return [
        row(f"a product, {name} against plain float32", 1e3 * times[name], "ms", 1e3 * times["plain"]) for name in ("packed", "bfloat16")
    ]


def plans(setting: Setting) -> list[Row]:
    """Unlike plans one after another, each variant prepared before."""
    drawn = [setting.plan(seed) for seed in range(2)]
    evaluators = {precision: setting.evaluator(precision) for precision in BARS}
    ways: dict[str, Callable[[Schemes], Observation]] = {"naive": setting.naive, "swapped": setting.swapped}
    ways |= {precision: evaluator.observe for precision, evaluator in evaluators.items()}
    times = interleaved({name: lambda way=way: [way(plan) for plan in drawn] for name, way in ways.items()}, setting.rounds)
    per_plan = {name: seconds / len(drawn) for name, seconds in times.items()}
    rows = [row(f"{setting.title}: variants swapped, plain products", per_plan["swapped"], "s", per_plan["naive"])]
    rows += [row(f"{setting.title}: {name} (bar {bar:g} x)", per_plan[name], "s", per_plan["naive"]) for name, bar in BARS.items()]
    ours, naive = logits_of(evaluators["float32"].observe(drawn[0])), logits_of(setting.naive(drawn[0]))
    rows.append(row(f"{setting.title}: float32, relative difference of the logits from the loop's (bar 1e-6)", relative(ours, naive), ""))
    if setting.samples <= FEW:
        exact = setting.exact(drawn[0])
        differences = relative(ours, exact), relative(naive, exact)
        rows.append(
            row(f"{setting.title}: float32, relative difference from float64, ours and the loop's", differences[0], "", differences[1])
        )
        if moved := setting.reordered(drawn[0]):
            change = relative(logits_of(moved), naive)
            rows.append(
                row(f"{setting.title}: the loop's own with the channels of its MLPs in another order, relative difference", change, "")
            )
    return rows


def sweeps(setting: Setting) -> list[Row]:
    """One layer of a plan changed at a time, and one layer of the original model."""
    rows: list[Row] = []
    chosen = setting.layers[:: setting.every]
    for around, parent in (("a plan", setting.plan(0)), ("the original", {})):
        children = [parent | {layer.name: other(parent.get(layer.name))} for layer in chosen]
        naive = float(np.median([spent(functools.partial(setting.naive, plan))[0] for plan in children[:: max(1, len(children) // 3)]]))
        for precision in BARS:
            evaluator = setting.evaluator(precision)
            evaluator.observe(parent, keep=True)
            for child in children:
                evaluator.observe(child)  # prepares the variants, and proves the cuts
            times = [min(spent(functools.partial(evaluator.observe, child))[0] for _ in range(2)) for child in children]
            bar = "" if precision == "float32" else " (bar 8 x)"
            rows.append(row(f"{setting.title}: sweep around {around}, {precision}{bar}", float(np.mean(times)), "s", naive))
            cut, full = evaluator.observe(children[-1]), setting.evaluator(precision).observe(children[-1])
            assert all(torch.equal(a.logits, b.logits) for a, b in zip(full.predictions, cut.predictions, strict=True))
    return rows


def table(setting: Setting) -> list[Row]:
    """Errors of all layers' outputs under all schemes, weights made anew, beside as many evaluations of the loop."""
    surface = LossSurface.of(setting.loaded.model, setting.task, setting.samples)
    names = [layer.name for layer in setting.layers]

    def ours() -> object:
        moments = dict(zip(names, input_moment(surface, setting.layers).moments, strict=True))
        return output_errors(Variants(setting.loaded.model, setting.layers, max_bytes=0), setting.layers, moments, SCHEMES)

    pairs, one = len(names) * len(SCHEMES), {names[len(names) // 2]: SCHEMES[1]}
    times = interleaved({"ours": ours, "naive": lambda: setting.naive(one)}, setting.rounds)
    return [
        row(f"{setting.title}: output errors of {pairs} pairs, moments included (bar 40 x)", times["ours"], "s", times["naive"] * pairs)
    ]


def agreement(setting: Setting) -> list[Row]:
    """What the approximate precisions do to the figures of plans, in halves of their 95 % intervals."""
    exact = setting.evaluator("float32")
    plans = [
        {name: SCHEMES[1 + seed % 2] if index % 3 else scheme for index, (name, scheme) in enumerate(setting.plan(seed).items())}
        for seed in range(4)
    ]
    before = exact.observe({})
    true = [setting.measured(before, exact.observe(plan)) for plan in plans]
    rows = []
    for precision in BARS:
        if precision == "float32":
            continue
        rough = setting.evaluator(precision)
        before = rough.observe({})
        near = [setting.measured(before, rough.observe(plan)) for plan in plans]
        metric, kl = [], []
        for ours, sure in zip(near, true, strict=True):
            assert ours.kl is not None
            assert sure.kl is not None
            assert sure.kl_sd is not None
            assert sure.metric.low is not None
            assert sure.metric.high is not None
            metric.append(abs(ours.metric.value - sure.metric.value) / max((sure.metric.high - sure.metric.low) / 2, 1e-9))
            kl.append(abs(ours.kl - sure.kl) / (1.96 * sure.kl_sd))
        rows += [
            row(f"{setting.title}: {precision}, change of the {name} in half intervals, largest of 4 (bar 1)", max(found), "")
            for name, found in (("metric", metric), ("KL", kl))
        ]
    return rows


def screening(setting: Setting) -> list[Row]:
    """Mutations of a plan that has four bits everywhere: stopped where clearly worse, beside measuring all of them."""
    evaluator = setting.evaluator("float32")
    parent = {layer.name: SCHEMES[1] for layer in setting.layers}
    draw = random.Random(0)
    children = [parent | {layer.name: draw.choice(SCHEMES) for layer in draw.sample(setting.layers, 6)} for _ in range(12)]
    original, reference = evaluator.observe({}), evaluator.observe(parent)
    best = setting.measured(original, reference).kl or 0.0
    full = [spent(functools.partial(evaluator.observe, child)) for child in children]
    screen = Screen(evaluator)
    screen.verdict(parent, parent)
    seconds, wrong, stopped = 0.0, 0, 0
    for child, (needed, found) in zip(children, full, strict=True):
        took, verdict = spent(functools.partial(screen.verdict, child, parent))
        seconds += took + (0.0 if verdict.worse else needed)
        stopped += verdict.worse
        wrong += verdict.worse and (setting.measured(original, found).kl or 0.0) <= best
    return [
        row(
            f"{setting.title}: {len(children)} mutations screened, {stopped} stopped, then measured",
            seconds,
            "s",
            sum(each for each, _ in full),
        ),
        row(f"{setting.title}: stopped and no worse in full (α = {screen.error_probability:g})", wrong, "plans"),
    ]


def other(scheme: Scheme | None) -> Scheme:
    return SCHEMES[1] if scheme is None else SCHEMES[(SCHEMES.index(scheme) + 1) % len(SCHEMES)]


def logits_of(found: Observation) -> torch.Tensor:
    return torch.cat([each.logits for each in found.predictions])


def relative(first: torch.Tensor, second: torch.Tensor) -> float:
    """Norm of the difference over the second's norm."""
    return float((first.double() - second.double()).norm() / second.double().norm())


if __name__ == "__main__":
    main()
