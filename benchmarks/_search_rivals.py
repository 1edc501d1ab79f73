"""Other people's allocators, run in environments of their own, and their decisions as schemes that Paredown measures.

`allocations` hands a rival the model, the very calibration batches and the mean widths that are wanted; what comes back is measured by
our quantizer on our evaluator, so that allocators alone are compared. ``benchmarks/rivals`` has the drivers, which say what each rival
was given, and ``install.py``, which makes the environments.

Both decide linear layers and leave embeddings alone, so whoever holds them to a size in bytes has to say what embeddings get. `plans` tries
them at every offered width, with linear layers of the mean width that fills what is left: the best of those, measured, is the rival's plan.

| demo | ModelOpt `auto_quantize` | AutoRound AutoScheme |
| --- | --- | --- |
| sentiment, vision | yes | yes, in its mode of one whole backward pass; AutoRound itself takes models that generate text alone |
| lm | yes | yes, at its defaults |
| speech | yes | not tried: its block-wise mode is for decoders, and labels would need a shift of their own |
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file

from _method_rivals import MissingRivalError
from paredown.models import LoadedModel
from paredown.sizes import layer_bytes
from paredown.specs import LayerRef, Scheme, WeightFormat
from paredown.tasks import Batch
from rivals.install import python_of

Rival = Literal["modelopt", "autoround"]
DRIVERS: Mapping[Rival, str] = {"modelopt": "modelopt_auto_quantize.py", "autoround": "autoround_autoscheme.py"}
BITS = (2, 3, 4, 8)
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


class RivalError(Exception):
    """A rival that failed, or took too long."""


@dataclass(frozen=True)
class Costs:
    """What a rival's decisions took, in one thread; loading is left out.

    Attributes:
        scoring_seconds: CPU seconds until every width of every layer has its score.
        solving_seconds: CPU seconds of all targets.
        forward_tokens: Tokens that the whole model was run on, padding included.
        backward_tokens: Tokens that went backwards.
        versions: Of its packages.
        note: What the counts leave out.
    """

    scoring_seconds: float
    solving_seconds: float
    forward_tokens: int
    backward_tokens: int
    versions: Mapping[str, str]
    note: str


@dataclass(frozen=True)
class Allocations:
    """What a rival decided: a scheme for every linear layer at each target (mean bits of a code), and what it took."""

    schemes: Mapping[float, Mapping[str, Scheme]]
    costs: Costs


def allocations(
    rival: Rival,
    loaded: LoadedModel,
    layers: Sequence[LayerRef],
    calibration: Sequence[Batch],
    targets: Sequence[float],
    seed: int = 0,
    *,
    bits: Sequence[int] = BITS,
    group_size: int = 64,
    symmetric: bool = False,
    fuse: bool = True,
    timeout_seconds: float = 3600,
) -> Allocations:
    """Have a rival decide the linear layers, once for all targets.

    Args:
        rival: Which one.
        loaded: The model; it is saved for the rival, and not changed.
        layers: Those of `find_layers`; embeddings among them are left out.
        calibration: Labelled batches.
        targets: Mean bits of a weight, scales and zero points left out.
        seed: Of whatever the rival draws.
        bits: The widths on offer.
        group_size: Inputs that share a scale.
        symmetric: Without zero points.
        fuse: Whether layers that a runtime fuses get one width.
        timeout_seconds: Wall time after which the rival is stopped.

    Raises:
        MissingRivalError: If its environment is not there.
        RivalError: If it fails or takes too long, or a batch has no labels.
    """
    python = python_of(rival)
    if not python.exists():
        raise MissingRivalError(f"{rival} has no environment in {python.parents[1]}; run python benchmarks/rivals/install.py {rival}")
    linear = [layer for layer in layers if layer.kind != "embedding"]
    groups = {tuple(sorted({layer.name, *(layer.fused_with if fuse else ())})) for layer in linear}
    request = {
        "layers": [layer.name for layer in linear],
        "groups": sorted(groups),
        "bits": list(bits),
        "group_size": group_size,
        "symmetric": symmetric,
        "targets": list(targets),
        "seed": seed,
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model: Any = loaded.model
        model.save_pretrained(folder / "model")
        save_file(_tensors(calibration), folder / "batches.safetensors")
        (folder / "request.json").write_text(json.dumps(request))
        _run([str(python), str(Path(__file__).parent / "rivals" / DRIVERS[rival]), temporary], rival, timeout_seconds)
        response = json.loads((folder / "response.json").read_text())
    schemes = {width: Scheme(WeightFormat(width, group_size, symmetric)) for width in bits}
    found = {each["target"]: {name: schemes[width] for name, width in each["bits"].items()} for each in response.pop("allocations")}
    return Allocations(found, Costs(**response))


def plans(
    rival: Rival,
    loaded: LoadedModel,
    layers: Sequence[LayerRef],
    calibration: Sequence[Batch],
    budgets: Sequence[int],
    fixed_bytes: int,
    seed: int = 0,
    *,
    bits: Sequence[int] = BITS,
    group_size: int = 64,
    symmetric: bool = False,
    **options: Any,
) -> tuple[dict[int, list[dict[str, Scheme]]], Costs]:
    """Have a rival fill budgets of true bytes: for each, one plan for every width of the embeddings that leaves enough for the rest.

    Args:
        rival: As in `allocations`, like all that is not here.
        loaded: The model.
        layers: Those of `find_layers`.
        calibration: Labelled batches.
        budgets: Bytes of the whole file.
        fixed_bytes: Bytes of what is no layer.
        seed: As in `allocations`.
        bits: The widths on offer.
        group_size: Inputs that share a scale.
        symmetric: Without zero points.
        options: The rest of `allocations`.
    """
    schemes = {width: Scheme(WeightFormat(width, group_size, symmetric)) for width in bits}
    embeddings = [layer for layer in layers if layer.kind == "embedding"]
    linear = [layer for layer in layers if layer.kind != "embedding"]
    wanted = {
        (budget, width): mean_bits(linear, schemes, budget - fixed_bytes - sum(layer_bytes(layer, scheme) for layer in embeddings))
        for budget in budgets
        for width, scheme in (schemes.items() if embeddings else [*schemes.items()][:1])
    }
    targets = sorted({target for target in wanted.values() if target is not None})
    found = allocations(rival, loaded, layers, calibration, targets, seed, bits=bits, group_size=group_size, symmetric=symmetric, **options)
    filled: dict[int, list[dict[str, Scheme]]] = {budget: [] for budget in budgets}
    for (budget, width), target in wanted.items():
        if target is not None:
            filled[budget].append({**{layer.name: schemes[width] for layer in embeddings}, **found.schemes[target]})
    return filled, found.costs


def mean_bits(layers: Sequence[LayerRef], schemes: Mapping[int, Scheme], bytes_left: int) -> float | None:
    """Mean bits of a code that fill so many bytes; None where they are too few for the smallest scheme.

    Bytes are affine in it: codes and zero points have that many bits, scales 16. The slope is that of the two narrowest schemes: wider ones may
    be stored with a shorter header, so that the budget holds.
    """
    low, next_wider, *_ = sorted(schemes)
    smallest, larger = (sum(layer_bytes(layer, schemes[width]) for layer in layers) for width in (low, next_wider))
    if bytes_left < smallest:
        return None
    return min(low + (next_wider - low) * (bytes_left - smallest) / (larger - smallest), float(max(schemes)))


def _tensors(batches: Sequence[Batch]) -> dict[str, Any]:
    tensors = {}
    for index, batch in enumerate(batches):
        if batch.targets is None:
            raise RivalError("the rivals' scores are gradients of a loss, which needs labels; give those of the calibration data")
        named = {f"inputs.{name}": tensor for name, tensor in batch.inputs.items()} | {"targets": batch.targets}
        tensors |= {f"{index}.{name}": tensor.contiguous() for name, tensor in named.items()}
    return tensors


def _run(command: Sequence[str], rival: str, timeout_seconds: float) -> None:
    try:
        done = subprocess.run(command, env=os.environ | _ONE_THREAD, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise RivalError(f"{rival} was stopped after {timeout_seconds:g} s; give it fewer batches or more time") from error
    if done.returncode:
        raise RivalError(f"{rival} failed:\n{done.stderr[-2000:]}")
