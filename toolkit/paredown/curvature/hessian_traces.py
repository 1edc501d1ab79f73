r"""Traces of the Hessian blocks of all layers, by probes in the space of the layers' outputs.

With \(z_s = a_s W^\top\) for sample s (tokens by outputs), \(\mathrm{tr}\, H = \frac1N \sum_s \sum_{t,t'} (a_t \cdot a_{t'})\, \mathrm{tr}\,
[\nabla_z^2 \ell_s]_{t,t'}\). Let \(a_s a_s^\top = R_s R_s^\top\), R triangular, and \(\delta z_s = R_s E_s\) with random signs E_s [tokens, out]: then
\(E \langle \delta z_s, \nabla_z^2 \ell_s\, \delta z_s \rangle\) is that sample's trace. What makes it cheap:

- Samples don't mix, so each has a probe of its own and a value of its own: data error is free, and probe errors average out over samples.
- The layers of a transformer block share one product; the cross terms between them are noise of mean zero. All blocks share one graph
  until their errors are known well; then the block has its turn whose next layer to be done costs least.
- The Gauss-Newton part of a value, \(\sum_c \langle u_c, \delta z \rangle_l \sum_m \langle u_c, \delta z \rangle_m\) with the columns u_c of \(J^\top M^{1/2}\), is
  known, and so is its mean: a control variate. It is used where there are at most `COLUMNS` of them.
- Probe noise grows with a sample's gradient: what a model predicts well adds next to nothing. So after two probes of every sample,
  probes go to samples in proportion to their gradient's norm (Neyman, "On the two different aspects of the representative method",
  1934), known before any probe, so that the estimate stays unbiased. Several probes of one sample share a product where it is short.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paredown.calibration import Call, listening
from paredown.curvature.double_backward import GRAPH_BYTES, bytes_of_a_sample, gradients, products, twice_differentiable
from paredown.curvature.ghost_norms import gauss_newton_traces
from paredown.curvature.output_space import OutputGraph, inputs_of, output_graph
from paredown.curvature.padding import TOKENS, padding_is_idle, runs, without_padding
from paredown.curvature.probes import exact_directions, generator_for, signs
from paredown.curvature.surface import LossSurface, rows_of
from paredown.curvature.uncertainty import ratio
from paredown.errors import ParedownError
from paredown.specs import LayerRef, TraceEstimate
from paredown.tasks import Batch

COLUMNS = 7
"""Most Gauss-Newton columns of the control variate: units of a sample times classes less one. Each costs a backward pass a graph."""

FIRST = 2
"""Probes of every sample in the first sweep: as many as tell a spread."""

ROUND = 4
"""Probes a sample that a later round adds on average, or half of those so far; and the fewest that a sample is worth a graph for."""

EXPLORED = 8
"""Probes a sample, on average, after which a layer's error is known well enough to say what it will cost."""

FLOOR = 0.02
"""Least weight of a sample, relative to the steepest one's."""


@dataclass(frozen=True, eq=False, slots=True)
class TraceSums:
    """All that has to be kept to go on later: running sums of each sample and layer, each [samples, layers], float64.

    Filled in place. The probes of a sample are numbered, so that ``counts`` is also the number of the next one.

    Attributes:
        counts: Probes so far.
        means: Their mean, summed over a sample's units.
        squares: Summed squared deviations from it.
        steepness: Squared norm of the loss's gradient with respect to the layer's outputs.
        gauss_newton: The sample's Gauss-Newton trace; 0 where it isn't known exactly.
    """

    counts: Tensor
    means: Tensor
    squares: Tensor
    steepness: Tensor
    gauss_newton: Tensor

    @classmethod
    def none(cls, samples: int, layers: int) -> TraceSums:
        """Before the first probe."""
        return cls(*(torch.zeros(samples, layers, dtype=torch.float64) for _ in range(5)))

    def add(self, rows: Tensor, layer: int, values: Tensor) -> None:
        """Take in one probe's values [rows]."""
        values = values.detach().double().cpu()
        self.counts[rows, layer] += 1
        step = values - self.means[rows, layer]
        self.means[rows, layer] += step / self.counts[rows, layer]
        self.squares[rows, layer] += step * (values - self.means[rows, layer])


def hessian_traces(
    surface: LossSurface,
    layers: Sequence[LayerRef],
    *,
    seed: int,
    target: float = 0.05,
    max_probes: int = 256,
    sums: TraceSums | None = None,
    limit_bytes: int = GRAPH_BYTES,
) -> Iterator[tuple[TraceEstimate, ...]]:
    """Traces of the layers' Hessian blocks, refined until their probe errors are small or the caller has seen enough.

    Estimates of a block's layers come after the first of its products, over the samples so far; then after each piece of work. Once
    errors are known well, blocks have their turns: first the one whose next layer to be done costs least. Probes depend on the seed,
    the layer, the sample's id and their number, not on batches. Memory: the model, graphs of `limit_bytes` (one sample's at least), the
    outputs of all layers for their samples, and five numbers a sample and layer.

    Args:
        surface: The loss.
        layers: The layers. Those whose weight is used twice in one pass (an embedding tied to the head) get graphs of their own, a sample
            at a time, and no control variate.
        seed: Of the probes.
        target: Probe error at which a layer gets no more probes, relative to the larger of the trace and the Gauss-Newton trace; as much
            below it as the error itself is uncertain, since few probes may agree by chance.
        max_probes: Probes a sample, on average, at which a layer gets no more.
        sums: Where to go on, and where to keep the sums; from the start where None.
        limit_bytes: What graphs may take.

    Yields:
        Estimates of the layers that were worked on; ``probes`` is the mean over samples.

    Raises:
        ParedownError: If a loss or a second derivative is not finite, or something can't be differentiated twice.
    """
    sums = TraceSums.none(surface.samples, len(layers)) if sums is None else sums
    if tuple(sums.counts.shape) != (surface.samples, len(layers)):
        raise ParedownError(
            f"expected sums of {surface.samples} samples and {len(layers)} layers to go on with, got {list(sums.counts.shape)};"
            " they are from another run"
        )
    prober = _Prober(surface, layers, seed, sums, limit_bytes)
    every = range(len(layers))
    for rows in prober.pieces(sums.counts.amin(1) < FIRST, every):
        for done in prober.probe(rows, prober.blocks(every), FIRST, upto=True):
            yield prober.estimates(done)
    while some := prober.turn(target, max_probes):
        for count, chosen in _allotment(sums, some):
            for rows in prober.pieces(chosen, some):
                for done in prober.probe(rows, prober.blocks(some), count):
                    yield prober.estimates(done)


def _allotment(sums: TraceSums, active: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """How many more probes, a power of two, and which samples [samples] get them: most to the fewest first."""
    steepness = sums.steepness[:, active]
    weights = (steepness / steepness.sum(0).clamp(min=torch.finfo(torch.float64).tiny)).mean(1).sqrt()
    weights = weights.clamp(min=FLOOR * float(weights.max())) if weights.any() else torch.ones_like(weights)
    counts = sums.counts[:, active].mean(1)
    wanted = (counts.sum() + max(ROUND * len(counts), float(counts.sum()) / 2)) * weights / weights.sum() - counts
    powers = wanted.clamp(min=1).log2().add(1e-9).floor().exp2()
    for count in powers[powers >= ROUND].unique().flip(0).tolist():
        yield int(count), powers == count


class _Prober:
    """Sends probes through pieces of the surface and takes their values into the sums."""

    def __init__(self, surface: LossSurface, layers: Sequence[LayerRef], seed: int, sums: TraceSums, limit_bytes: int) -> None:
        self.surface, self.layers, self.seed, self.sums, self.limit = surface, layers, seed, sums, limit_bytes
        self.index = {layer.name: i for i, layer in enumerate(layers)}
        self.each: dict[tuple[int, ...], int] = {}
        self.scales: Mapping[str, float] | None = None
        self.shorten = padding_is_idle(surface)

    def blocks(self, of: Sequence[int]) -> list[list[int]]:
        """The layers that share a product: those of one transformer block."""
        blocks: dict[str, list[int]] = {}
        for i in of:
            blocks.setdefault(self.layers[i].block, []).append(i)
        return list(blocks.values())

    def turn(self, target: float, max_probes: int) -> list[int]:
        """Layers to go on with; none where all are done.

        First all of them, until their errors are known well; then those of one block, where the next layer to be done costs least
        (Smith, "Various optimizers for single-stage production", 1956).
        """
        probes = self.sums.counts.mean(0).tolist()
        errors = [self._cautious_error(i) for i in range(len(self.layers))]
        waiting = [i for i, error in enumerate(errors) if error > target and probes[i] < max_probes]
        if not target or any(probes[i] < EXPLORED for i in waiting):
            return waiting

        def cost(block: list[int]) -> float:
            return self._bytes(block) * min(probes[i] * ((errors[i] / target) ** 2 - 1) for i in block)

        return min(self.blocks(waiting), key=cost, default=[])

    def _cautious_error(self, i: int) -> float:
        """Relative probe error, its square two standard errors higher: with the degrees of freedom of Satterthwaite (1946)."""
        (estimate,) = self.estimates([i])
        counts, squares = self.sums.counts[:, i], self.sums.squares[:, i]
        variances = squares / (counts - 1) / counts
        total = float(variances.sum())
        if total == 0:
            return 0.0
        freedom = 1 / float(((variances / total).square() / (counts - 1)).sum())
        return (estimate.relative_probe_error or 0.0) * math.sqrt(1 + 2 * math.sqrt(2 / freedom))

    def _bytes(self, of: Sequence[int]) -> int:
        """Of a sample's graph of some layers; a product's work goes with it."""
        key = tuple(of)
        if key not in self.each:
            wanted = [self.layers[i] for i in of]
            self.each[key] = bytes_of_a_sample(self.surface.batches, lambda batch: output_graph(self.surface, batch, wanted))
        return self.each[key]

    def pieces(self, chosen: Tensor, of: Sequence[int]) -> Iterator[Tensor]:
        """Rows of the chosen samples [samples], of one batch, as many as fit into memory with the graph of some layers."""
        most = max(1, self.limit // self._bytes(of))
        start = 0
        for batch in self.surface.batches:
            rows = chosen[start : start + len(batch.ids)].nonzero()[:, 0]
            if len(rows):
                yield from (run + start for run in runs(batch, rows, most, by_length=self.shorten))
            start += len(batch.ids)

    def batch(self, rows: Tensor) -> Batch:
        start = 0
        for batch in self.surface.batches:
            if int(rows[0]) < start + len(batch.ids):
                piece = rows_of(batch, rows - start)
                return without_padding(piece) if self.shorten else piece
            start += len(batch.ids)
        raise AssertionError

    def probe(self, rows: Tensor, blocks: Sequence[Sequence[int]], count: int, *, upto: bool = False) -> Iterator[Sequence[int]]:
        """Take in so many probes more (or up to so many) of samples of one batch; yields each block of layers when it is done."""
        samples = len(rows)
        copies = 1 if upto else self._copies(rows, blocks, count)
        rows = rows.repeat(copies)
        batch = self.batch(rows)
        layers = [self.layers[i] for block in blocks for i in block]
        columns = _columns(self.surface, batch, layers)
        graph = output_graph(self.surface, batch, layers)
        for block in blocks:
            views = [_View.of(graph, self.layers[i], columns) for i in block if self.layers[i].name not in graph.entangled]
            for view in views:
                layer = self.index[view.layer.name]
                self.sums.steepness[rows, layer] = view.steepness
                self.sums.gauss_newton[rows, layer] = view.gauss_newton
            tangled = [self.layers[i] for i in block if self.layers[i].name in graph.entangled]
            for _ in range(count - int(self.sums.counts[rows][:, list(block)].min()) if upto else count // copies):
                for layer, values in self._forms(graph, views, batch, rows):
                    self._take(rows[:samples], layer, values)
                for layer in tangled:
                    self._take(rows[:samples], layer, _tangled_forms(self.surface, batch, layer, self._generators(layer, batch, rows)))
            yield block

    def _take(self, rows: Tensor, layer: LayerRef, values: Tensor) -> None:
        if not bool(torch.isfinite(values).all()):
            raise ParedownError(
                f"second derivatives are NaN or infinite at {layer.name} for samples {', '.join(map(str, rows.tolist()[:4]))};"
                " look for such values in the model's weights, or for operations that have none there, such as the root of 0"
            )
        for probe in values.split(len(rows)):
            self.sums.add(rows, self.index[layer.name], probe)

    def _copies(self, rows: Tensor, blocks: Sequence[Sequence[int]], count: int) -> int:
        """How many probes of each sample share a product, a power of two: with few tokens a product is slow for its size."""
        mask = self.batch(rows).inputs.get("attention_mask")
        if mask is None:
            return 1
        most = min(TOKENS // mask.numel(), self.limit // self._bytes([i for block in blocks for i in block]) // len(rows), count)
        return 1 << max(0, most.bit_length() - 1)

    def _generators(self, layer: LayerRef, batch: Batch, rows: Tensor) -> list[torch.Generator]:
        copies = torch.arange(len(rows)) // len(rows.unique())
        numbers = self.sums.counts[rows, self.index[layer.name]].long() + copies
        return [
            generator_for(self.seed, "hessian_traces " + layer.name, (sample, number))
            for sample, number in zip(batch.ids, numbers.tolist(), strict=True)
        ]

    def _forms(self, graph: OutputGraph, views: Sequence[_View], batch: Batch, rows: Tensor) -> Iterator[tuple[LayerRef, Tensor]]:
        """One product for some layers together; each layer's value of each sample, its known noise taken off."""
        moves = [view.move(self._generators(view.layer, batch, rows)) for view in views]
        calls = [i for view in views for i in view.calls]
        found = iter(graph.products([move for moved in moves for move in moved], calls)) if calls else iter(())
        known = [
            [sum((u * move).sum((1, 2)) for u, move in zip(column, moved, strict=True)) for column in view.columns]
            for view, moved in zip(views, moves, strict=True)
        ]
        sums = [sum(parts) for parts in zip(*known, strict=True)]
        for view, moved, mine in zip(views, moves, known, strict=True):
            value = torch.zeros(len(batch.ids), dtype=torch.float64)
            for move in moved:
                value = value + (next(found) * move).sum((1, 2)).double()
            for own, together in zip(mine, sums, strict=True):
                value = value - (own * together)
            yield view.layer, value + view.gauss_newton

    def estimates(self, of: Sequence[int]) -> tuple[TraceEstimate, ...]:
        """What is known of some layers, from the samples that have been probed."""
        return tuple(self._estimate(i) for i in of)

    def _estimate(self, i: int) -> TraceEstimate:
        seen = self.sums.counts[:, i] >= FIRST
        counts, units = self.sums.counts[seen, i], self.surface.units[seen]
        value, spread = ratio(self.sums.means[seen, i : i + 1], units)
        probe_sd = (self.sums.squares[seen, i] / (counts - 1) / counts).sum().sqrt() / units.double().sum()
        exact = float(self.sums.gauss_newton[seen, i].sum() / units.double().sum())
        return TraceEstimate(
            self.layers[i].name,
            "hessian",
            float(value),
            self._data_error(i, float(spread), float(probe_sd), seen),
            float(probe_sd),
            int(seen.sum()),
            round(float(counts.mean())),
            self.seed,
            exact or self._scale(self.layers[i].name),
        )

    def _data_error(self, i: int, spread: float, probe_sd: float, seen: Tensor) -> float:
        """What of the spread over samples is not the probes' noise.

        The difference of the variances comes out near zero, or below, where there are few probes: no less is said than the spread of
        the samples' Gauss-Newton traces, which hold no noise, or than all of the spread where those are not known.
        """
        own = max(spread**2 - probe_sd**2, 0.0) ** 0.5
        known = self.sums.gauss_newton[seen, i : i + 1]
        return max(own, float(ratio(known, self.surface.units[seen])[1])) if known.any() else own or spread

    def _scale(self, name: str) -> float | None:
        """The Gauss-Newton trace by one random column of each sample, where the exact one isn't known."""
        if self.surface.logits is None:
            return None
        if self.scales is None:
            *_, last = gauss_newton_traces(self.surface, self.layers, seed=self.seed, exact=False)
            self.scales = {estimate.layer: estimate.value for estimate in last}
        return self.scales.get(name)


@dataclass(frozen=True, eq=False, slots=True)
class _View:
    """One layer in a graph.

    Attributes:
        layer: The layer.
        calls: Which of the graph's calls are its; several only where all are lookups.
        roots: R of each sample, [samples, tokens, k], over the tokens of all calls; for lookups, to each token the first that looks up the same.
        columns: Gauss-Newton columns, each one [samples, tokens, out] a call.
        shapes: Of the calls' outputs.
        gauss_newton: Exact trace of each sample, [samples]; 0 without columns.
        steepness: Squared norm of the gradient, [samples].
    """

    layer: LayerRef
    calls: list[int]
    roots: Tensor | None
    columns: list[list[Tensor]]
    shapes: list[tuple[int, ...]]
    gauss_newton: Tensor
    steepness: Tensor
    like: Tensor

    @classmethod
    def of(cls, graph: OutputGraph, layer: LayerRef, columns: Sequence[Mapping[str, list[Tensor]]]) -> _View:
        mine = [i for i, call in enumerate(graph.calls) if call.layer.name == layer.name]
        calls = [graph.calls[i] for i in mine]
        own = [column[layer.name] for column in columns]
        if not calls:
            nothing = torch.zeros((), dtype=torch.float64)
            return cls(layer, [], None, own, [], nothing, nothing, nothing)
        roots = _first_of_each(calls) if calls[0].kind == "lookup" else torch.linalg.qr(inputs_of(calls[0]).mT, mode="r").R.mT
        exact = sum(_squared_norms(roots, torch.cat(column, 1)).double() for column in own) + torch.zeros(len(roots), dtype=torch.float64)
        steepness = sum(graph.gradients[i].detach().reshape(len(roots), -1).square().sum(1).double() for i in mine)
        assert isinstance(steepness, Tensor)
        return cls(layer, mine, roots, own, [call.outputs for call in calls], exact, steepness, graph.gradients[mine[0]].detach())

    def move(self, generators: Sequence[torch.Generator]) -> list[Tensor]:
        """R E of each sample with fresh signs, one [samples, tokens, out] a call."""
        if self.roots is None:
            return []
        width = self.shapes[0][-1]
        dense = self.roots.dim() == 3
        noise = torch.stack([signs((self.roots.shape[-1], width), self.like, generator) for generator in generators])
        moved = self.roots @ noise if dense else noise.gather(1, self.roots[:, :, None].expand(-1, -1, width))
        return list(moved.split([shape[1] for shape in self.shapes], 1))


def _first_of_each(calls: Sequence[Call]) -> Tensor:
    """To each token the first one of its sample that looks up the same row, [samples, tokens]."""
    ids = torch.cat([call.inputs for call in calls if call.inputs is not None], 1)
    return (ids[:, :, None] == ids[:, None, :]).int().argmax(2)


def _squared_norms(roots: Tensor, column: Tensor) -> Tensor:
    r"""\(\|u^\top a\|^2 = \|R^\top u\|^2\), the squared norm of what a column gives the weight, [samples]."""
    if roots.dim() == 3:
        return (roots.mT @ column).square().sum((1, 2))
    return torch.zeros_like(column).scatter_add_(1, roots[:, :, None].expand_as(column), column).square().sum((1, 2))


def _columns(surface: LossSurface, batch: Batch, layers: Sequence[LayerRef]) -> list[dict[str, list[Tensor]]]:
    """Gauss-Newton columns at the layers' outputs, one [samples, tokens, out] a call; none where they are many or there are no logits."""
    if surface.logits is None:
        return []
    result: list[dict[str, list[Tensor]]] = []
    heard: dict[Call, Tensor] = {}

    def keep(call: Call, gradient: Tensor) -> None:
        heard[call] = gradient.clone()  # autograd adds the next column's into the very same tensor

    with torch.enable_grad(), listening(surface.model, layers, batch, keep) as calls:
        predictions = surface.logits(batch)
        places = int(surface.units.max())
        if (predictions.logits.shape[-1] - 1) * places > COLUMNS:
            return []
        for column in exact_directions(predictions, places):
            heard.clear()
            torch.autograd.backward(predictions.logits, column.to(predictions.logits), retain_graph=True)
            result.append({name: [_heard(heard, call) for call in made] for name, made in calls.items()})
    return result


def _heard(heard: Mapping[Call, Tensor], call: Call) -> Tensor:
    assert call.inputs is not None
    return heard[call] if call in heard else torch.zeros(call.outputs, dtype=call.dtype, device=call.inputs.device)


def _tangled_forms(surface: LossSurface, batch: Batch, layer: LayerRef, generators: Sequence[torch.Generator]) -> Tensor:
    r"""\(\langle V_s, \nabla_W^2 \ell_s\, V_s \rangle\) for signs V_s of its own for each sample, \(d^2 \ell_s(W + \tau V_s) / d\tau^2\), [samples]."""
    return torch.stack(
        [_second_derivative(surface, rows_of(batch, torch.tensor([row])), layer, generator) for row, generator in enumerate(generators)]
    )


def _second_derivative(surface: LossSurface, sample: Batch, layer: LayerRef, generator: torch.Generator) -> Tensor:
    modules = dict(surface.model.named_modules(remove_duplicate=False))
    uses = {id(modules[path]): modules[path] for path in (layer.name, *layer.tied_to)}.values()
    weight = next(iter(uses)).weight
    assert isinstance(weight, Tensor)
    direction = signs(layer.shape, weight, generator)
    step = torch.zeros((), dtype=weight.dtype, device=weight.device, requires_grad=True)

    def move(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        moved = direction[arguments[0]] if isinstance(module, nn.Embedding) else arguments[0] @ direction.T
        return output + step * moved

    handles = [module.register_forward_hook(move) for module in uses]
    try:
        with twice_differentiable(surface.model), torch.enable_grad():
            slope = gradients(surface.losses(sample).sum(), [step])
            return products(slope, [step], [torch.ones_like(step)])[0]
    finally:
        for handle in handles:
            handle.remove()
