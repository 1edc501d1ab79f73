"""Many plans of one model, each at a fraction of what it costs to build it and run it alone."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from paredown.apply import Variants, check_names, parameters_of
from paredown.errors import ParedownError
from paredown.evaluation.comparison import EMULATED
from paredown.evaluation.modules import casting_modules, computing, holding, in_bfloat16, nothing, overridden
from paredown.evaluation.observation import Observation, observe
from paredown.evaluation.pieces import Pieces, merged
from paredown.evaluation.prefix import Blocks, Recorded, UnlikeRunError
from paredown.evaluation.survey import Survey, survey
from paredown.evaluation.unread import first_row_alone, first_row_layers
from paredown.evaluation.weights import Form, PreparedWeights, is_packed
from paredown.kernels.cpu.library import load
from paredown.sizes import fit
from paredown.specs import KEEP, LayerRef, Precision, Scheme
from paredown.tasks import Batch, Predictions, Task

APPROXIMATE = "bfloat16 weights and activations (emulated, approximate)"
"""Kernel of a measurement in bfloat16: for comparing many plans."""

ROUNDED = "packed codes on our kernels, {}, layers' inputs rounded to 8 bits (approximate)"
"""Kernel of a measurement in int8: what the packed model computes where it is run so, and more than its scheme alone loses."""

T = TypeVar("T")
Predict = Callable[[Batch], Predictions]
Effective = Mapping[str, Scheme]
"""The scheme that really applies to each layer, `KEEP` included."""


@dataclass(eq=False, slots=True)
class _Run:
    """A plan whose blocks are recorded, batch by batch."""

    effective: Effective
    seconds: float = 0.0
    bytes: int = 0
    records: dict[Batch, Recorded] = field(default_factory=dict)
    proof: tuple[Batch, bytes] | None = None  # the first batch, and what identifies its logits


@dataclass(frozen=True, eq=False, slots=True)
class _Swap:
    """What is put in place while plans are evaluated.

    Attributes:
        forwards: Modules whose layers compute with a variant, and how.
        contents: What parameters hold meanwhile.
        fixed: Parameters of layers whose variants are in the model itself, which bfloat16 casts anew for each plan.
        casting: Modules whose kernels want inputs and weights of one type.
    """

    forwards: Sequence[tuple[nn.Module, Callable[..., Any]]]
    contents: Sequence[tuple[nn.Parameter, Tensor]]
    fixed: Sequence[nn.Parameter]
    casting: Sequence[nn.Module]


class Evaluator:
    """Evaluates plans of one model on one task.

    Every (layer, scheme) variant is prepared once and kept, and a plan swaps pointers to them. With ``float32`` results agree with
    `paredown.apply.Variants` to rounding (1e-6 of the logits, or a few of these), and are reproducible bit for bit. With ``bfloat16`` weights and activations have 8
    significant bits, norms and softmax as the model computes them: for ranking plans. With ``int8`` packed codes are multiplied by our
    kernels, layers' inputs rounded to 8 bits in each group, and all else is as with ``float32``; the variants take a fraction of the memory.

    Samples are run without their padding, in pieces of about equal length, and of a model that answers by a sample's first token the last
    block is computed for that token alone, where a trial on the original model shows that neither changes the answers (`whole_batches`).

    A plan that begins like one that was observed with ``keep`` gets the outputs of the blocks before their first difference from
    it, bit for bit what running them gives. Where a model's blocks can't be given back, all is run, and `runs_in_full` says why.

    As with `Variants`, the model is what it was after each call, also after an exception, and another thread waits.

    Args:
        model: The model.
        layers: The layers that plans decide on.
        task: What the model is asked.
        batches: The batches that plans are observed on.
        variants: Makes the dequantized weights of the model; its own cache may be small.
        precision: See above.
        weight_bytes: Bytes of prepared weights to keep. A plan with more of them is streamed, layer by layer: what does not fit is made
            again, or loaded from where ``variants`` has it, when a batch comes to it.
        prefix_bytes: Bytes of blocks' outputs to keep.

    Raises:
        ParedownError: If a limit is negative or there are no batches.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[LayerRef],
        task: Task,
        batches: Sequence[Batch],
        variants: Variants,
        *,
        precision: Precision = "float32",
        weight_bytes: int = 2**30,
        prefix_bytes: int = 2**29,
    ) -> None:
        if min(weight_bytes, prefix_bytes) < 0 or not batches:
            raise ParedownError(f"expected batches and limits of at least 0 bytes, got {len(batches)}, {weight_bytes} and {prefix_bytes}")
        self.model, self.layers, self.task, self.batches, self.variants = model, tuple(layers), task, tuple(batches), variants
        self.precision: Precision = precision
        self.weights = PreparedWeights(variants, layers, precision, weight_bytes)
        self.runs_in_full = "" if task.offers_probabilities else "the task offers no predictions, so that its batches can't be told apart"
        """Why no outputs of blocks are given back; empty where they are."""
        self.blocks_given_back = 0
        """Calls of blocks that were not run, so far."""
        self._pieces = Pieces()
        self._prefix_bytes = prefix_bytes
        self._blocks = Blocks(model, layers)
        self._runs: OrderedDict[frozenset[tuple[str, Scheme]], _Run] = OrderedDict()
        self._proven: set[int] = set()
        self._first_row_layers: frozenset[str] = frozenset()
        self._active: Effective = {}
        self._changed: frozenset[str] = frozenset()

    @property
    def kernel(self) -> str:
        """What multiplies the weights, for `Measurement.kernel`."""
        if self.precision == "bfloat16":
            return APPROXIMATE
        library, reason = load()
        if self.precision == "int8":
            return ROUNDED.format(library.isa().name) if library else f"{EMULATED}: {reason}"
        weight = next(self.model.parameters())
        return EMULATED.replace(" (", ", packed by oneDNN (") if is_packed(weight.data) else EMULATED

    @property
    def whole_batches(self) -> str:
        """Why padding is computed with; empty where it is not."""
        return self._pieces.refused

    @property
    def prefix_bytes(self) -> int:
        """Bytes of blocks' outputs that are kept."""
        return sum(run.bytes for run in self._runs.values())

    def observe(self, schemes: Mapping[str, Scheme], *, keep: bool = False, batches: Sequence[Batch] | None = None) -> Observation:
        """What the model answers under a plan.

        Args:
            schemes: Layer name to scheme; a layer that is absent is kept.
            keep: Record what the blocks give, for plans that begin alike: the original model before a sweep over single layers, the
                parent before its mutations.
            batches: Other batches than the evaluator's.

        Returns:
            The observation. Where blocks were not run, its seconds are those of the recorded run.

        Raises:
            ParedownError: If a layer is unknown, a plan can't be applied, the outputs are not finite, or the model can't run in bfloat16.
        """
        chosen = self.batches if batches is None else tuple(batches)
        found, seconds = self._ask(schemes, chosen, keep, lambda predict: observe(self.model, self.task, chosen, predict))
        return dataclasses.replace(found, seconds=seconds or found.seconds)

    def predictions(self, schemes: Mapping[str, Scheme], batches: Sequence[Batch], *, keep: bool = False) -> tuple[Predictions, ...]:
        """What the model predicts under a plan, without the metric; see `observe`."""

        @torch.inference_mode()
        def ask(predict: Predict) -> tuple[Predictions, ...]:
            return tuple(predict(batch) for batch in batches)

        return self._ask(schemes, batches, keep, ask)[0]

    def _ask(self, schemes: Mapping[str, Scheme], batches: Sequence[Batch], keep: bool, ask: Callable[[Predict], T]) -> tuple[T, float]:
        """The answer, and the seconds of the recorded run where blocks were not run, else 0."""
        check_names(schemes, self.layers)
        effective = {layer.name: fit(schemes.get(layer.name, KEEP), layer)[0] for layer in self.layers}
        with self.variants.applied({}):  # holds the lock
            self.weights.calibrate(effective)
            with self._in_place(effective):
                try:
                    return self._follow(effective, batches, keep, ask)
                except UnlikeRunError as reason:
                    self.runs_in_full = f"the model does not call its blocks alike each time: {reason}"
                    self._runs.clear()
                    return self._follow(effective, batches, keep, ask)
                except RuntimeError as error:
                    if self.precision != "bfloat16":
                        raise
                    raise ParedownError(f"{type(self.model).__name__} can't run in bfloat16: {error}; evaluate it in float32") from error

    def clear(self) -> None:
        """Forget weights and outputs."""
        with self.variants.applied({}):
            self.weights.clear()
            self._runs.clear()

    def _follow(self, effective: Effective, batches: Sequence[Batch], keep: bool, ask: Callable[[Predict], T]) -> tuple[T, float]:
        parent, cut = self._parent(effective, batches)
        if parent is not None and not self._proves(parent, cut):
            parent, cut = None, 0
        self._become(effective, parent)
        key = frozenset(effective.items())
        run = self._runs.setdefault(key, _Run(effective)) if keep and not self.runs_in_full else None
        skipped, spent = 0, 0.0

        def predict(batch: Batch) -> Predictions:
            return merged([(piece, predict_piece(piece.batch)) for piece in self._pieces.of(batch)])

        def predict_piece(batch: Batch) -> Predictions:
            nonlocal skipped, spent
            if self.runs_in_full:
                return self.task.predictions(self.model, batch)
            before = None if parent is None else parent.records.get(batch)
            admits = None if run is None or batch in run.records else functools.partial(self._admits, run, parent)
            started = time.perf_counter()
            with self._blocks.running(before, cut, admits) as recorded:
                made = self.task.predictions(self.model, batch)
                skipped += self._blocks.cut
            spent += time.perf_counter() - started
            self.runs_in_full = self.runs_in_full or recorded.refused
            if run is not None and admits is not None:
                run.records[batch] = recorded
                run.proof = run.proof or (batch, _identity(made))
            return made

        try:
            found = ask(predict)
        except BaseException:
            self._runs.pop(key, None)  # half a record
            raise
        self.blocks_given_back += skipped
        instead = parent.seconds if parent is not None and skipped else 0.0
        if self.runs_in_full:
            self._runs.clear()
        elif run is not None:
            run.seconds = run.seconds or instead or spent
        return found, instead

    def _parent(self, effective: Effective, batches: Sequence[Batch]) -> tuple[_Run | None, int]:
        """The recorded plan that differs latest, and how many calls of blocks come before the difference."""
        best, most = None, 0
        for key, run in self._runs.items():
            if run.proof is None or not any(piece.batch in run.records for batch in batches for piece in self._pieces.of(batch)):
                continue
            cut = min(self._agreement(effective, run.effective), len(run.records[run.proof[0]].outputs))
            if cut > most:
                best, most = key, cut
        if best is None:
            return None, 0
        self._runs.move_to_end(best)
        return self._runs[best], most

    def _agreement(self, effective: Effective, other: Effective) -> int:
        places = self._survey.places
        return min((places[name] for name in effective if effective[name] != other[name]), default=self._survey.calls)

    def _proves(self, parent: _Run, cut: int) -> bool:
        """Whether giving back so many blocks leaves a recorded plan's predictions as they are, bit for bit; tried once for each cut."""
        if cut in self._proven or parent.proof is None:
            return cut in self._proven
        batch, identity = parent.proof
        self._become(parent.effective, None)
        with torch.inference_mode(), self._blocks.running(parent.records[batch], cut):
            again = self.task.predictions(self.model, batch)
        if _identity(again) != identity:
            self.runs_in_full = f"giving back {cut} blocks changed the predictions: something passes by the blocks' arguments"
            self._runs.clear()
            return False
        self._proven.add(cut)
        return True

    def _admits(self, run: _Run, parent: _Run | None, size: int) -> bool:
        """Whether so many bytes more are kept of a run; what was used longest ago and is not in use makes room."""
        for key, other in list(self._runs.items()):
            if self.prefix_bytes + size > self._prefix_bytes and other is not run and other is not parent:
                del self._runs[key]
        admitted = self.prefix_bytes + size <= self._prefix_bytes
        run.bytes += size if admitted else 0
        return admitted

    def _become(self, effective: Effective, parent: _Run | None) -> None:
        self._active = effective
        self._changed = frozenset() if parent is None else frozenset(n for n in effective if effective[n] != parent.effective[n])
        self.weights.use(effective)

    def _compute(self, name: str, form: Form, input: Tensor, bias: Tensor | None) -> Tensor:
        if self._blocks.calls < self._blocks.cut and name in self._changed:
            raise UnlikeRunError(f"{name} was called before a block that it had followed")
        compute = self.weights.get(name, self._active[name], form).compute
        return first_row_alone(lambda x: compute(x, bias), input) if name in self._first_row_layers else compute(input, bias)

    @contextmanager
    def _in_place(self, effective: Effective) -> Iterator[None]:
        swap = self._swap
        with ExitStack() as stack:
            stack.enter_context(self.variants.applied({layer.name: effective[layer.name] for layer in self._survey.fixed}))
            stack.enter_context(overridden(swap.forwards))
            if self.precision == "bfloat16":
                back = not self.task.takes_bfloat16
                stack.enter_context(in_bfloat16(self.model, swap.contents, swap.fixed, swap.casting, cast_back=back))
            else:
                stack.enter_context(holding(swap.contents))
            yield

    @functools.cached_property
    def _survey(self) -> Survey:
        def run() -> None:
            if self.task.offers_probabilities:
                self.task.predictions(self.model, self.batches[0])
            else:
                self.task.scores(self.model, self.batches)

        found = survey(self.model, self.layers, self._blocks, run)
        self.runs_in_full = self.runs_in_full or found.refused
        if self.task.offers_probabilities:
            self._first_row_layers = first_row_layers(self.model, found.free, self.batches[0], self._original_predictions)
            self._pieces.prove(self.batches, self._original_predictions)
        return found

    @torch.inference_mode()
    def _original_predictions(self, batch: Batch) -> Predictions:
        return self.task.predictions(self.model, batch)

    @functools.cached_property
    def _swap(self) -> _Swap:
        free, low = self._survey.free, self.precision == "bfloat16"
        forwards = computing(self.model, free, self._compute)
        contents = nothing(self.model, free, torch.bfloat16 if low else None)
        if low:
            ours = {id(parameter) for layer in self.layers for parameter in parameters_of(self.model, layer)}
            others = [parameter for parameter in self.model.parameters() if parameter.is_floating_point() and id(parameter) not in ours]
            contents += [(parameter, parameter.data.to(torch.bfloat16)) for parameter in others]
        replaced = {module for module, _ in forwards}
        fixed = [parameter for layer in self._survey.fixed for parameter in parameters_of(self.model, layer)]
        return _Swap(forwards, contents, fixed, [module for module in casting_modules(self.model) if module not in replaced])


def _identity(predictions: Predictions) -> bytes:
    return hashlib.blake2b(predictions.logits.detach().cpu().contiguous().numpy().data).digest()
