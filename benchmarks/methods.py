"""The methods beside well-kept implementations: the same layers, inputs and settings, one thread, CPU time.

Four layers: the query, first and second MLP layers of a block of demo:sentiment, and a second MLP layer of demo:lm, with the inputs that they
see on calibration data. The error is that of the outputs, tr(ΔW H ΔWᵀ) / tr(W H Wᵀ) with the second moment H of the inputs. Times
are medians of rounds in which both sides take turns, from weight and second moment (samples for auto-round, the weight alone for HQQ and NF4) to
the dense result.

Settings are the rival's defaults unless a row says otherwise. HQQ of torchao has zero points of 16 bits that are any numbers, ours has whole ones
of the code's width, as our files and other packed integers hold them: the same groups are compared, with torchao's zero points as they are and
rounded to codes, and at 4 bits the same bytes as well, which buy us groups half as long. Weights of demo:lm come from a 4-bit file with
free offsets in groups of 32, which such zero points hit better than whole ones can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeVar

import torch
from torch import Tensor

import _method_rivals as rivals
from _rows import Row, interleaved, options, row, show, spent
from paredown import calibration, models, tasks
from paredown.curvature.surface import LossSurface
from paredown.layers import find_layers, weight_of
from paredown.methods import Statistics, compress, dequantize, kfac_pruning, mfac
from paredown.methods.error_feedback import inverse_factor
from paredown.methods.gptq import gptq
from paredown.methods.hqq import quantize_hqq
from paredown.methods.masks import NOfM, Pattern, Unstructured, select
from paredown.methods.normal_float import NormalFloatFormat, dequantize_normal_float, quantize_normal_float
from paredown.methods.pruning import prune
from paredown.methods.quantize import dequantize as dense
from paredown.methods.refit import PASSES, refit
from paredown.methods.refit import STEPS as REFIT
from paredown.methods.saliency import wanda
from paredown.methods.sign_round import STEPS, sign_round
from paredown.methods.sparse_gpt import sparse_gpt
from paredown.specs import LayerRef, Scheme, Solver, WeightFormat

Made = TypeVar("Made")

GROUP = 64
ROUNDS = 5
ITERATIONS = 200

CHOSEN = {
    "sentiment q": ("demo:sentiment", "bert.encoder.layer.2.attention.self.query"),
    "sentiment fc1": ("demo:sentiment", "bert.encoder.layer.2.intermediate.dense"),
    "sentiment fc2": ("demo:sentiment", "bert.encoder.layer.2.output.dense"),
    "lm down": ("demo:lm", "model.layers.10.mlp.down_proj"),
}
SAMPLES = {"demo:sentiment": 64, "demo:lm": 16}


@dataclass(frozen=True, eq=False)
class Linear:
    """A layer and what it saw.

    Attributes:
        name: For the rows.
        weight: [out, in].
        samples: Inputs of each sample's real tokens, [tokens, in].
        gradients: Of the loss by the layer's outputs at the same tokens, [tokens, out].
    """

    name: str
    weight: Tensor
    samples: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]

    @cached_property
    def moment(self) -> Tensor:
        """Mean of x xᵀ, float32 [in, in]."""
        rows = torch.cat(self.samples)
        return rows.T @ rows / len(rows)

    def error(self, made: Tensor) -> float:
        """tr(ΔW H ΔWᵀ) / tr(W H Wᵀ)."""
        weight, moment = self.weight.double(), self.moment.double()
        change = made.double() - weight
        return float((change @ moment * change).sum() / (weight @ moment * weight).sum())


@cache
def block(demo: str, prefix: str) -> dict[str, Linear]:
    """The layers of a demo whose names begin so, by name."""
    loaded = models.load(demo)
    surface = LossSurface.of(loaded.model, tasks.load(demo, loaded), SAMPLES[demo])
    layers = [layer for layer in find_layers(loaded.model) if layer.name.startswith(prefix)]
    seen = calibration.capture(loaded.model, layers, surface.batches, lambda batch: surface.losses(batch).sum())
    return {layer.name: _linear(layer, weight_of(loaded.model, layer), seen[layer.name]) for layer in layers}


def _linear(layer: LayerRef, weight: Tensor, captured: calibration.Captured) -> Linear:
    pairs = [
        (part.inputs[sample][real], part.gradients[sample][real])
        for (part,) in captured.batches
        for sample in range(len(part.inputs))
        for real in [slice(None) if part.mask is None else part.mask[sample]]
    ]
    return Linear(layer.name, weight.clone(), tuple(inputs for inputs, _ in pairs), tuple(gradients for _, gradients in pairs))


@cache
def linears() -> dict[str, Linear]:
    """Those of `CHOSEN`, by the names of the rows."""
    return {short: block(demo, name)[name] for short, (demo, name) in CHOSEN.items()}


def compared(
    title: str, ours: Callable[[Linear], Tensor], theirs: Callable[[Linear], Tensor] | None, rounds: int = ROUNDS
) -> Iterator[Row]:
    """Rows of error, and of time, for each layer; a single round is both."""
    for name, layer in linears().items():
        jobs = {"ours": ours} if theirs is None else {"ours": ours, "theirs": theirs}
        first = {job: spent(lambda run=run, layer=layer: run(layer)) for job, run in jobs.items()}
        errors = {job: layer.error(made) for job, (_, made) in first.items()}
        yield row(f"{title}, {name}: error of outputs", errors["ours"], "", errors.get("theirs"))
        if rounds > 1:
            times = interleaved({job: lambda run=run, layer=layer: run(layer) for job, run in jobs.items()}, rounds)
        else:
            times = {job: seconds for job, (seconds, _) in first.items()}
        yield row(f"{title}, {name}: CPU time", 1000 * times["ours"], "ms", 1000 * times["theirs"] if theirs is not None else None)


def tried(make: Callable[..., Made], *args: object, **kwargs: object) -> Made | None:
    """A rival's function, or nothing and a line that says why."""
    try:
        return make(*args, **kwargs)
    except rivals.MissingRivalError as reason:
        print(f"skipped: {reason}", flush=True)
        return None


def with_moment(function: Callable[[Tensor, Tensor], Tensor] | None) -> Callable[[Linear], Tensor] | None:
    """A function of weight and moment as one of a layer."""
    return None if function is None else lambda layer: function(layer.weight, layer.moment)


def with_weight(function: Callable[[Tensor], Tensor] | None) -> Callable[[Linear], Tensor] | None:
    """A function of the weight as one of a layer."""
    return None if function is None else lambda layer: function(layer.weight)


def gptq_rows() -> Iterator[Row]:
    """GPTQ, with whole and with searched ranges."""
    for bits, solver, observer in ((4, "rtn", "memoryless_minmax"), (4, "mse", "memoryless_mse"), (3, "mse", "memoryless_mse")):
        format = WeightFormat(bits, GROUP)

        def ours(layer: Linear, format: WeightFormat = format, solver: Solver = solver) -> Tensor:
            return dense(gptq(layer.weight, inverse_factor(layer.moment), format, solver).quantized)

        theirs = tried(rivals.gptq, bits, GROUP, symmetric=False, observer=observer)
        ranges = "whole" if solver == "rtn" else "searched"
        yield from compared(f"GPTQ {format}, {ranges} ranges; llm-compressor", ours, with_moment(theirs))


def patterns() -> list[tuple[str, Pattern, float, tuple[int, int] | None]]:
    """Ours and a rival's words for them."""
    return [("2:4", NOfM(2, 4), 0.5, (2, 4)), ("50%", Unstructured(0.5, per_row=False), 0.5, None)]


def sparse_gpt_rows() -> Iterator[Row]:
    """SparseGPT: ours, which brings the kept weights near their optimum, ours without, and ours with the kept weights solved outright."""
    for name, pattern, fraction, n_of_m in patterns():

        def ours(layer: Linear, passes: int = PASSES, steps: int = 0, pattern: Pattern = pattern) -> Tensor:
            unit = pattern.m if isinstance(pattern, NOfM) else 1
            factor = inverse_factor(layer.moment, order="activation" if unit > 1 else "natural", unit=unit)
            found = sparse_gpt(layer.weight, factor, pattern, passes=passes)
            return refit(layer.weight, found.weight, found.mask, factor, steps=steps) if steps else found.weight

        theirs = with_moment(tried(rivals.sparse_gpt, fraction, n_of_m))
        yield from compared(f"SparseGPT {name}; llm-compressor", ours, theirs)
        yield from compared(f"SparseGPT {name}, one sweep; llm-compressor", lambda layer, ours=ours: ours(layer, passes=0), theirs)
        yield from compared(f"SparseGPT {name}, solved; llm-compressor", lambda layer, ours=ours: ours(layer, steps=REFIT), theirs)


def wanda_rows() -> Iterator[Row]:
    """Wanda, which compares the weights of a row."""
    for name, pattern, fraction, n_of_m in patterns():
        among = pattern if isinstance(pattern, NOfM) else Unstructured(fraction, per_row=True)

        def ours(layer: Linear, among: Pattern = among) -> Tensor:
            return prune(layer.weight, wanda(layer.weight, layer.moment), among).weight

        yield from compared(f"Wanda {name}; llm-compressor", ours, with_moment(tried(rivals.wanda, fraction, n_of_m)))


def hqq_rows() -> Iterator[Row]:
    """HQQ in the same groups, and at the same bytes."""

    def ours(format: WeightFormat) -> Callable[[Linear], Tensor]:
        return lambda layer: dense(quantize_hqq(layer.weight, format))

    for bits in (4, 3):
        theirs = with_weight(tried(rivals.hqq, bits, GROUP))
        yield from compared(f"HQQ {WeightFormat(bits, GROUP)}; torchao", ours(WeightFormat(bits, GROUP)), theirs)
        whole = with_weight(tried(rivals.hqq, bits, GROUP, whole=True))
        yield from compared(f"HQQ {WeightFormat(bits, GROUP)}; torchao, zero points rounded", ours(WeightFormat(bits, GROUP)), whole)
        same = WeightFormat(bits, GROUP // 2, symmetric=True)
        yield from compared(f"HQQ {same}; torchao int{bits}g{GROUP}, the same bytes", ours(same), theirs)
        symmetric = WeightFormat(bits, GROUP, symmetric=True)
        theirs = with_weight(tried(rivals.hqq_symmetric, bits, GROUP))
        yield from compared(f"HQQ {symmetric}; torchao, scale only", ours(symmetric), theirs)


def nf4_rows() -> Iterator[Row]:
    """NF4, scales quantized in both."""

    def ours(layer: Linear) -> Tensor:
        return dequantize_normal_float(quantize_normal_float(layer.weight, NormalFloatFormat(4, GROUP)))

    yield from compared(f"NF4 g{GROUP}; bitsandbytes", ours, with_weight(tried(rivals.nf4, GROUP)))


def sign_round_rows() -> Iterator[Row]:
    """SignRound, at our default number of steps and at the rival's number of iterations, which are 200."""
    for bits, steps in ((4, STEPS), (4, ITERATIONS), (3, STEPS)):
        format = WeightFormat(bits, GROUP)

        def ours(layer: Linear, format: WeightFormat = format, steps: int = steps) -> Tensor:
            return dense(sign_round(layer.weight, layer.moment, format, steps=steps))

        function = tried(rivals.auto_round, bits, GROUP, symmetric=False, iterations=ITERATIONS)
        theirs = None if function is None else lambda layer, function=function: function(layer.weight, layer.samples)
        yield from compared(f"SignRound {format}, {steps} steps; auto-round", ours, theirs, rounds=1)


def families() -> Iterator[Row]:
    """What each family takes: mean CPU seconds of a linear layer of a block of demo:sentiment, nothing shared between layers."""
    layers = list(block("demo:sentiment", "bert.encoder.layer.2.").values())
    assert all(len(layer.moment) for layer in layers)  # made before any time is taken
    schemes = [
        scheme
        for bits in (4, 3)
        for number in (f"int{bits}g{GROUP}", f"nf{bits}g{GROUP}")
        for scheme in (number, *(f"{number}+{part}" for part in ("2:4-wanda", "2:4-sparsegpt", "eora16", "svd16")))
    ] + [f"int{bits}g{GROUP}{tail}" for bits in (4, 3) for tail in ("-mse", "-gptq", "-gptq+2:4", "-gptq+50%", "-gptq+2:4+eora16")]

    def compressed(text: str) -> Callable[[Linear], Tensor]:
        return lambda layer: dequantize(compress(layer.weight, Scheme.parse(text), Statistics(layer.moment)))

    def surgeon(layer: Linear) -> Tensor:
        gradients = torch.stack([back.T @ inputs for inputs, back in zip(layer.samples, layer.gradients, strict=True)])
        return mfac.prune(layer.weight, gradients, Unstructured(0.5)).weight

    def kfac(layer: Linear) -> Tensor:
        back = torch.cat(layer.gradients)
        factors = (layer.moment, back.T @ back / len(back))
        mask = select(kfac_pruning.brain_surgeon(layer.weight, *factors).values, Unstructured(0.5))
        return kfac_pruning.compensate(layer.weight, mask, *factors).weight

    jobs: dict[str, Callable[[Linear], Tensor]] = {text: compressed(text) for text in schemes}
    for bits in (4, 3):
        format = WeightFormat(bits, GROUP)
        jobs[f"{format}, HQQ"] = lambda layer, format=format: dense(quantize_hqq(layer.weight, format))
        jobs[f"{format}, SignRound"] = lambda layer, format=format: dense(sign_round(layer.weight, layer.moment, format))
    jobs |= {"50%, M-FAC": surgeon, "50%, K-FAC": kfac}
    for name, job in jobs.items():
        job(layers[0])
        seconds, made = spent(lambda job=job: [job(layer) for layer in layers])
        errors = sorted(layer.error(each) for layer, each in zip(layers, made, strict=True))
        yield row(f"{name}: CPU time of a linear layer", seconds / len(layers), "s")
        yield row(f"{name}: median error of outputs", (errors[2] + errors[3]) / 2, "")


SECTIONS: dict[str, Callable[[], Iterator[Row]]] = {
    "gptq": gptq_rows,
    "sparsegpt": sparse_gpt_rows,
    "wanda": wanda_rows,
    "hqq": hqq_rows,
    "nf4": nf4_rows,
    "signround": sign_round_rows,
    "families": families,
}


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="some of the comparisons")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows: Sequence[Row] = [each for name in arguments.only for each in SECTIONS[name]()]
    show("Methods on four layers, one thread, CPU time", list(rows), arguments.json)


if __name__ == "__main__":
    main()
