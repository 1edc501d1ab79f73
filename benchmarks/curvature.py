"""What curvature costs, beside PyHessian 0.1 and curvlinops 3.0.1: the same model and samples, one thread, CPU time.

Each row names the matrix of both sides: where ours is a Gauss-Newton matrix and the rival's the Hessian, the ratio compares two ways to
serve one purpose. Traces are compared at equal probe error, relative to the larger of the trace's magnitude and the Gauss-Newton trace;
eigenvalues at equal residual. What a rival needs beyond the draws that were made is extrapolated from them, and said above the table.

We cut a padded batch into pieces of about equal length; curvlinops, which takes several batches, gets the same pieces. PyHessian gets
one padded batch: it keeps the graph of a single one only, which is worth more to it than the padding.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import _rivals as rivals
from _rows import Row, interleaved, options, row, show, spent
from paredown import calibration, models, tasks
from paredown.curvature import Eigenpairs, extreme_eigenvalues, gauss_newton, gauss_newton_traces, probe_density
from paredown.curvature.double_backward import pieces
from paredown.curvature.hessian_traces import hessian_traces
from paredown.curvature.outer_products import OuterProducts
from paredown.curvature.output_space import HessianBlock, HessianBlocks
from paredown.curvature.surface import LossSurface
from paredown.layers import find_layers, weight_of
from paredown.methods import compress, dequantize
from paredown.sizes import fit
from paredown.specs import LayerRef, Scheme, TraceEstimate
from paredown.tasks import Batch

Estimates = tuple[TraceEstimate, ...]

PROBE_ERROR = 0.05
RESIDUAL = 0.01
DENSITY_LAYER = "bert.encoder.layer.2.attention.output.dense"
ROUNDS = 5
COLUMNS = 4  # of a product with curvlinops' blocks: a fifth cheaper each than one alone, and they fit into memory


@dataclass(frozen=True)
class Setting:
    """The sentiment demo, and how much is measured rather than extrapolated.

    Attributes:
        samples: Calibration samples.
        draws: PyHessian's draws of each layer's trace.
        every: Which layers top eigenvalues are asked of: every so many; a block has six, so that seven shows each kind at another depth.
    """

    samples: int
    draws: int
    every: int

    @cached_property
    def surface(self) -> LossSurface:
        """Model and loss as we use them."""
        loaded = models.load("demo:sentiment")
        return LossSurface.of(loaded.model, tasks.load("demo:sentiment", loaded), self.samples)

    @cached_property
    def held_out(self) -> LossSurface:
        """As many samples again, and three times more, that nothing was calibrated on."""
        loaded = models.load("demo:sentiment")
        return LossSurface.of(loaded.model, tasks.load("demo:sentiment", loaded), 4 * self.samples, split="held_out")

    @cached_property
    def eager(self) -> nn.Module:
        """The model with the attention that the rivals need."""
        model = models.load("demo:sentiment").model
        model.set_attn_implementation("eager")
        return model

    @cached_property
    def layers(self) -> tuple[LayerRef, ...]:
        """All of them."""
        return find_layers(self.surface.model)

    @cached_property
    def batch(self) -> Batch:
        """The surface's only batch."""
        (batch,) = self.surface.batches
        return batch

    @cached_property
    def pieces(self) -> list[Batch]:
        """The batch cut by length."""
        return list(pieces(self.surface, self.samples))

    @cached_property
    def pyhessian(self) -> rivals.TraceCosts:
        """Its draws, which more than one comparison reads."""
        return rivals.pyhessian_traces(self.eager, self.layers, self.batch, self.draws)


QUICK, USUAL, FULL = Setting(8, 4, 11), Setting(32, 5, 7), Setting(32, 100, 1)


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--quick", action="store_true", help="8 samples, few draws and layers: minutes, to see that all runs")
    parser.add_argument("--full", action="store_true", help="100 draws of PyHessian, eigenvalues of every layer: hours")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="some of the comparisons")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    setting = QUICK if arguments.quick else FULL if arguments.full else USUAL
    rows: list[Row] = []
    for name in arguments.only:
        rows += SECTIONS[name](setting)
        show(f"Curvature of demo:sentiment, {setting.samples} samples, one thread, CPU time", rows, arguments.json)


def simple_trace(setting: Setting) -> list[Row]:
    """The default sensitivity beside one forward and backward pass."""
    surface, layers = setting.surface, setting.layers
    times = interleaved(
        {"ours": lambda: last(gauss_newton_traces(surface, layers, seed=0)), "pass": lambda: one_pass(surface, layers)}, ROUNDS
    )
    exact = gauss_newton(surface, layers, exact=True)
    found = last(gauss_newton_traces(surface, layers, seed=0))
    off = max(abs(each.value / exact.block(i).trace() - 1) for i, each in enumerate(found))
    say(f"trace: {len(layers)} layers; one probe is exact where there are two classes")
    return [
        row("all traces, GGN: cost in forward + backward passes (bar: at most 1.5)", times["ours"] / times["pass"], "passes"),
        row("all traces, GGN: farthest from the exact one (bar 15 %)", 100 * off, "%"),
    ]


def trace(setting: Setting) -> list[Row]:
    """Traces at a probe error of 5 % on the median layer."""
    surface, layers = setting.surface, setting.layers
    cheap, simple = spent(lambda: last(gauss_newton_traces(surface, layers, seed=0)))
    ours, found = spent(lambda: precise(hessian_traces(surface, layers, seed=0, target=PROBE_ERROR), layers, setting.samples))
    theirs = setting.pyhessian
    scale = np.maximum([each.value for each in simple], np.abs(theirs.draws.mean(0)))
    wanted = (theirs.draws.std(0, ddof=1) / scale / PROBE_ERROR) ** 2
    needed, half = float(np.median(wanted)), len(layers) // 2 + 1
    operator = rivals.curvlinops_of(setting.eager, layers, setting.pieces)
    product, _ = spent(lambda: rivals.curvlinops_draw(operator, layers, COLUMNS))
    probes = statistics.mean(each.probes for each in found)
    say(f"trace, ours: Hessian to {100 * median_error(found):.2g} % on the median layer, {probes:.0f} probes a sample, all measured")
    say(f"trace, PyHessian: {setting.draws} draws of each layer measured, {theirs.per_draw.sum():.3g} s for one of all layers, set-up")
    say(f"  {theirs.setup.sum():.3g} s; {needed:.0f} draws needed, the rest extrapolated")
    say(f"trace, curvlinops: {COLUMNS} draws of each layer measured, {product / COLUMNS:.3g} s for one of all layers; as many needed")
    first = np.sort(theirs.setup + wanted * theirs.per_draw)[:half].sum()
    other = np.sort(wanted)[:half].sum() * product / COLUMNS / len(layers)
    say(
        "trace: the rivals draw as often for every layer; we go on with those that are soonest done. If they knew those beforehand, and did"
    )
    say(f"  nothing for the others, they would need {first:.3g} and {other:.3g} s: {first / ours:.2g} and {other / ours:.2g} times ours")
    return [
        row("all traces to 5 %: GGN; PyHessian, Hessian (bar 500)", cheap, "s", theirs.seconds(needed)),
        row("all traces to 5 %: Hessian; PyHessian, Hessian (bar 6)", ours, "s", theirs.seconds(needed)),
        row("all traces to 5 %: Hessian; curvlinops, Hessian (bar 18)", ours, "s", needed * product / COLUMNS),
    ]


def top(setting: Setting) -> list[Row]:
    """Largest eigenvalues to a residual of 1 %."""
    layers = setting.layers[2 :: setting.every]

    def ours(start: OuterProducts, layer: LayerRef) -> Eigenpairs:
        return extreme_eigenvalues(blocks[layer], start=start.top_eigenvector(), residual=RESIDUAL)

    blocks = HessianBlocks(setting.surface, layers)
    begin, starts = spent(lambda: gauss_newton(setting.surface, layers))
    seconds, products, farthest, missed = np.array([begin, 0, 0]), np.zeros(2), 0.0, 0
    for i, layer in enumerate(layers):
        mine, pairs = spent(lambda i=i, layer=layer: ours(starts.block(i), layer))
        first, value, residual = rivals.pyhessian_top(setting.eager, layer, setting.batch, RESIDUAL)
        second, (other, count) = spent(lambda layer=layer: rivals.curvlinops_top(setting.eager, layer, setting.pieces, RESIDUAL))
        seconds += (mine, first, second)
        products += (pairs.products, count)
        missed += residual > RESIDUAL or value < 0
        farthest = max(farthest, abs(pairs.values[0] / other - 1))
    say(
        f"top eigenvalue: {len(layers)} of {len(setting.layers)} layers, Hessian, each by all three in turn; products ours {products[0]:.0f},"
    )
    say(
        f"  curvlinops {products[1]:.0f}, whose values ours are at most {100 * farthest:.2g} % from; PyHessian, which looks for the largest"
    )
    say(f"  magnitude, ended above the residual or at a negative eigenvalue in {missed} layers")
    return [
        row("largest eigenvalue to 1 %: Hessian; PyHessian, Hessian (bar 2.2)", seconds[0], "s", seconds[1]),
        row("largest eigenvalue to 1 %: Hessian; curvlinops, Hessian (bar 12)", seconds[0], "s", seconds[2]),
    ]


def spectra(setting: Setting) -> list[Row]:
    """All non-zero eigenvalues of all layers, beside a density of each."""

    def ours() -> list[Tensor]:
        matrix = gauss_newton(setting.surface, setting.layers, exact=True)
        return [matrix.block(i).eigenvalues() for i in range(len(setting.layers))]

    seconds, _ = spent(ours)
    say(
        "spectra, PyHessian: set-up and products at the cost measured for the trace, 100 a layer; without Gram-Schmidt, so less than the truth"
    )
    return [row("all spectra: GGN, exact; PyHessian density, Hessian (bar 40)", seconds, "s", setting.pyhessian.seconds(100))]


def density(setting: Setting) -> list[Row]:
    """One layer's spectral density."""
    layer = next(layer for layer in setting.layers if layer.name == DENSITY_LAYER)
    ours, (nodes, _) = spent(lambda: probe_density(HessianBlock(setting.surface, layer), steps=20))
    first, values = spent(lambda: rivals.pyhessian_density(setting.eager, layer, setting.batch))
    second, _ = spent(lambda: rivals.curvlinops_density(setting.eager, layer, setting.pieces, 50))
    say(f"density: {layer.name}; ours 20 steps, PyHessian 100, curvlinops 50 and those of its bounds")
    return [
        row("one density: Hessian; PyHessian, Hessian (bar 5)", ours, "s", first),
        row("one density: Hessian; curvlinops, Hessian (bar 11)", ours, "s", second),
        row("one density: top eigenvalues apart, ours and PyHessian's (bar 1 %)", 100 * abs(nodes[-1] / max(values) - 1), "%"),
    ]


def rounding(setting: Setting) -> list[Row]:
    """The loss of rounding one layer to 4 bits, predicted and measured on the same held-out samples."""
    surface = setting.held_out
    original = log_probabilities(surface)
    figures = []
    for layer in setting.layers:
        weight = weight_of(surface.model, layer)
        before = weight.clone()
        change = dequantize(compress(weight, fit(Scheme.parse("int4g64"), layer)[0])) - weight
        matrix = gauss_newton(surface, [layer])
        predicted = 0.5 * float(matrix.quadratic_forms([change])[0])
        hawq = matrix.trace() / weight.numel() * float(change.square().sum())
        moment = calibration.statistics(matrix.gradients[0].captured).input_second_moment
        output = (change.square().sum(1) * moment).sum() if moment.dim() == 1 else ((change @ moment) * change).sum()
        weight.add_(change)
        measured = float((original.exp() * (original - log_probabilities(surface))).sum(1).mean())
        weight.copy_(before)
        figures.append((measured, predicted, hawq, float(output)))
    measured, predicted, hawq, output = np.array(figures).T
    ratio = predicted / measured
    quad, simple, plain = (float(spearmanr(measured, values).statistic) for values in (predicted, hawq, output))
    say(f"rounding: {len(figures)} layers, one at a time, {surface.samples} held-out samples; predicted over measured {ratio.min():.2g} to")
    say(f"  {ratio.max():.2g}")
    return [
        row("KL of 4 bits, rank: ½ΔWᵀGΔW (bar 0.98); HAWQ-V2 tr(G)/D ‖ΔW‖²", quad, "Spearman", simple, better="more"),
        row("KL of 4 bits, rank: ½ΔWᵀGΔW (bar 0.98); ‖XΔW‖²", quad, "Spearman", plain, better="more"),
        row("KL of 4 bits: predicted over measured, median (bar 0.9 to 1.1)", float(np.median(ratio)), ""),
    ]


def language_model(setting: Setting) -> list[Row]:
    """SmolLM2-135M, in a process of its own, whose memory is read."""
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "figures.json"
        here = str(Path(__file__).parent)
        code = f"import sys; sys.path.insert(0, {here!r}); from curvature import measure_language_model as run; run({str(to)!r}, {setting.samples})"
        subprocess.run([sys.executable, "-c", code], check=True)
        figures = json.loads(to.read_text(encoding="utf-8"))
    say("SmolLM2: {layers} layers, {samples} x 256 tokens, standard error of the median layer {error:.1f} %".format(**figures))
    return [
        row(
            "SmolLM2 traces, GGN, one probe: cost in forward + backward passes (bar: at most 2)",
            figures["ours"] / figures["pass"],
            "passes",
        ),
        row("SmolLM2 traces, GGN: peak memory (bar 6 GB)", figures["peak"] / 1e9, "GB"),
    ]


def measure_language_model(to: str, samples: int) -> None:
    """Each batch by us and by a forward and backward pass in turn; the memory is read before the first of these."""
    torch.set_num_threads(1)
    loaded = models.load("demo:lm")
    surface = LossSurface.of(loaded.model, tasks.load("demo:lm", loaded), samples)
    layers = find_layers(loaded.model)
    stream = gauss_newton_traces(surface, layers, seed=0)
    ours, theirs, peak, start = [], [], 0, 0
    for batch in surface.batches:
        seconds, found = spent(lambda: next(stream))
        peak = peak or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        alone = surface.take(torch.arange(start, start + len(batch.ids)))
        start += len(batch.ids)
        ours.append(seconds)
        theirs.append(spent(lambda alone=alone: one_pass(alone, layers))[0])
    error = 100 * statistics.median(each.relative_data_error for each in found)
    figures = {"ours": sum(ours), "pass": sum(theirs), "peak": peak, "layers": len(found), "samples": samples, "error": error}
    Path(to).write_text(json.dumps(figures), encoding="utf-8")


def one_pass(surface: LossSurface, layers: Sequence[LayerRef]) -> None:
    """One forward and backward pass of the loss, to the layers' weights."""
    weights = [surface.model.get_submodule(layer.name).weight for layer in layers]
    for weight in weights:
        weight.requires_grad_(True)
    for batch in surface.batches:
        torch.autograd.grad(surface.losses(batch).sum(), weights, allow_unused=True)
    for weight in weights:
        weight.requires_grad_(False)


def precise(stream: Iterable[Estimates], layers: Sequence[LayerRef], samples: int) -> Estimates:
    """The estimates of all layers when the median probe error first is small enough; the stream may give a few layers at a time."""
    newest: dict[str, TraceEstimate] = {}
    for found in stream:
        newest |= {each.layer: each for each in found}
        whole = len(newest) == len(layers) and all(each.samples == samples for each in newest.values())
        if whole and median_error(newest.values()) <= PROBE_ERROR:
            break
    return tuple(newest.values())


def median_error(estimates: Iterable[TraceEstimate]) -> float:
    """Relative probe error of the median layer; infinite where one probe doesn't tell."""
    errors = (each.relative_probe_error for each in estimates)
    return statistics.median(np.inf if error is None else error for error in errors)


def last(estimates: Iterable[Estimates]) -> Estimates:
    """The last estimates."""
    return list(estimates)[-1]


@torch.no_grad()
def log_probabilities(surface: LossSurface) -> Tensor:
    """[units, classes], float64."""
    assert surface.logits is not None
    return torch.cat([surface.logits(batch).logits.double().log_softmax(-1) for batch in surface.batches])


def say(text: str) -> None:
    print(text, flush=True)


SECTIONS: dict[str, Callable[[Setting], list[Row]]] = {
    "simple-trace": simple_trace,
    "trace": trace,
    "top": top,
    "spectra": spectra,
    "density": density,
    "rounding": rounding,
    "language-model": language_model,
}

if __name__ == "__main__":
    main()
