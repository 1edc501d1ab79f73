"""A compressed-tensors checkpoint that plain ``AutoModel....from_pretrained`` loads, with several formats in one model.

What can be held is what compressed-tensors 0.20 and transformers 5.23 load together; both were read and run:

- Linear layers, symmetric, at 2 to 8 bits: packed, every group size, exact.
- Zero points: the loader makes their place as [out, groups] while the packed file has [ceil(out bits / 32), groups], so that it
  refuses the file. Unpacked codes of 8 bits have no such difference.
- Embeddings: packing removes the parameter ``weight``, which transformers' initialisation of every ``nn.Embedding`` then asks for
  and fails. Unpacked codes of 8 bits keep that name.
- A tensor that an embedding and the output layer share: tying asks for ``weight`` too. Unpacked codes of 8 bits can be shared, with
  the scales stored for each of the two.
- Models whose class has rules of its own for initialisation or renaming: `loader_probe` asks the installed version.
- GPT-2's ``Conv1D``: compressed-tensors knows Linear and Embedding alone.

Every group names its layers exactly; no expressions, no class names, so that the order of the groups does not matter.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paredown import sizes
from paredown.apply import Kept, compress_layer, parameters_of, state_of
from paredown.errors import ParedownError
from paredown.export.checkpoint import write_folder
from paredown.export.loader_probe import probe
from paredown.export.plan_json import check_plan
from paredown.export.refusals import Refusal, refuse
from paredown.loadable import obstacle
from paredown.methods import dequantize
from paredown.models import LoadedModel
from paredown.specs import KEEP, LayerRef, Plan, Scheme, WeightFormat, fused_groups

WEIGHTS = "model.safetensors"


def refusal(layer: LayerRef, scheme: Scheme) -> str:
    """Why plain transformers could not load a layer under a scheme; empty where it can. For choosing candidates, too."""
    found = obstacle(layer, scheme)
    return found.reason if found else ""


def check(model: nn.Module, layers: Sequence[LayerRef], plan: Plan) -> tuple[Refusal, ...]:
    """Every layer that the format can't hold under a plan, and every fused group that runtimes could not load.

    Args:
        model: The uncompressed model; the installed transformers is asked whether it could load its class.
        layers: The model's layers.
        plan: What is done to them.

    Returns:
        Layer names and reasons; empty where the plan can be written.
    """
    found = list(check_layers(layers, plan))
    description = quantization_config(layers, plan.schemes)
    if not description["config_groups"]:
        found.append(Refusal(type(model).__name__, "the plan keeps every layer, so that there is nothing to compress"))
    elif not found:
        found += probe(model, description)
    return tuple(found)


def check_layers(layers: Sequence[LayerRef], plan: Plan) -> tuple[Refusal, ...]:
    """What `check` finds without the model: every layer that the format can't hold, and every fused group that runtimes could not load."""
    found = [Refusal(layer.name, reason) for layer in layers if (reason := refusal(layer, plan.schemes.get(layer.name, KEEP)))]
    by_name = {layer.name: layer for layer in layers}
    for group in fused_groups(layers):
        formats = {name: sizes.fit(plan.schemes.get(name, KEEP), by_name[name])[0].weight for name in group}
        first = formats[group[0]]
        found += [
            Refusal(name, f"runtimes fuse it with {group[0]}, which has another format; give both the same scheme")
            for name in group
            if formats[name] != first
        ]
    return tuple(found)


def refusals(model: nn.Module, layers: Sequence[LayerRef], schemes: Sequence[Scheme]) -> dict[tuple[str, Scheme], str]:
    """What can't be offered to which layer, before any plan is searched.

    Args:
        model: The uncompressed model; the installed transformers is asked whether it could load its class.
        layers: The model's layers.
        schemes: What might be offered.

    Returns:
        (layer name, scheme) to the reason, for those pairs alone that are refused.
    """
    probed = {layer.name: _PACKED for layer in layers if not refusal(layer, _PACKED)}
    found = {refused.layer: refused.reason for refused in probe(model, quantization_config(layers, probed))} if probed else {}
    whole = found.get(type(model).__name__, "")
    reasons: dict[tuple[str, Scheme], str] = {}
    for layer in layers:
        for scheme in schemes:
            applied = sizes.fit(scheme, layer)[0]
            packed = applied != KEEP and sizes.is_packed(layer, applied)
            reason = refusal(layer, scheme) or (whole if applied != KEEP else "") or (found.get(layer.name, "") if packed else "")
            if reason:
                reasons[layer.name, scheme] = reason
    return reasons


_PACKED = Scheme(WeightFormat(4, None, symmetric=True))  # fits every layer


def quantization_config(layers: Sequence[LayerRef], schemes: Mapping[str, Scheme]) -> dict[str, Any]:
    """The ``quantization_config`` of ``config.json``: one group for each format, with the exact names of its layers."""
    groups: dict[tuple[WeightFormat, str], list[str]] = {}
    ignored: list[str] = []
    for layer in layers:
        applied = sizes.fit(schemes.get(layer.name, KEEP), layer)[0]
        weight = applied.weight
        if weight is None:
            ignored.extend((layer.name, *layer.tied_to))
        else:
            layout = "pack-quantized" if sizes.is_packed(layer, applied) else "int-quantized"
            groups.setdefault((weight, layout), []).extend((layer.name, *layer.tied_to))
    layouts = sorted({layout for _, layout in groups})
    return {
        "quant_method": "compressed-tensors",
        "format": layouts[0] if len(layouts) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "ignore": ignored,
        "config_groups": {
            f"group_{index}": _group(weight, layout, names) for index, ((weight, layout), names) in enumerate(groups.items())
        },
    }


def _group(weight: WeightFormat, layout: str, names: list[str]) -> dict[str, Any]:
    return {
        "targets": names,
        "format": layout,
        "weights": {
            "num_bits": weight.bits,
            "type": "int",
            "symmetric": weight.symmetric,
            "strategy": "channel" if weight.group_size is None else "group",
            "group_size": weight.group_size,
            "dynamic": False,
        },
        "input_activations": None,
        "output_activations": None,
    }


def write(loaded: LoadedModel, layers: Sequence[LayerRef], plan: Plan, folder: str | Path, kept: Kept | None = None) -> Path:
    """Write the checkpoint, load it with plain transformers, and compare every weight.

    Args:
        loaded: The uncompressed model.
        layers: Its layers.
        plan: What is done to them; at least one layer is compressed.
        folder: Where; an empty folder or an earlier export is replaced.
        kept: Weights that were compressed before, for schemes that need calibration.

    Returns:
        The folder: config, weights, processor and plan. Load it with ``AutoModelFor....from_pretrained(folder)``.

    Raises:
        ParedownError: If the format can't hold the plan (nothing is written then), the plan is for another model, the place can't be
            written to, or the folder loads with other weights than it should.
    """
    check_plan(plan, loaded.digest, layers)  # before the format is blamed for it
    remedy = "Or export it in Paredown's own format, which holds every plan: paredown.export.native.write."
    refuse("compressed-tensors", check(loaded.model, layers, plan), remedy)
    description = quantization_config(layers, plan.schemes)
    return write_folder(
        loaded,
        layers,
        plan,
        folder,
        weights=WEIGHTS,
        config=lambda plain: {**plain, "quantization_config": description},
        check=lambda written: _check_reloaded(loaded, layers, plan, written, kept),
        kept=kept,
    )


def _check_reloaded(loaded: LoadedModel, layers: Sequence[LayerRef], plan: Plan, folder: Path, kept: Kept | None) -> None:
    """Load as a user would, and compare.

    Raises:
        ParedownError: If transformers can't load the folder, or a weight differs.
    """
    noise = io.StringIO()  # compressed-tensors draws progress bars that can't be switched off
    kind: Any = type(loaded.model)
    try:
        with contextlib.redirect_stderr(noise):
            model: Any = kind.from_pretrained(folder, local_files_only=True)
            model.hf_quantizer.compressor.decompress_model(model)
    except Exception as error:
        raise ParedownError(
            f"transformers can't load what was written for {type(loaded.model).__name__}: {error}; please report this with the plan"
        ) from error
    expected = state_of(loaded.model)
    for layer in layers:
        scheme = plan.schemes.get(layer.name, KEEP)
        if scheme != KEEP:
            expected[f"{layer.name}.weight"] = dequantize(compress_layer(parameters_of(loaded.model, layer)[0], layer, scheme, kept))
    found = model.state_dict()
    for name, weight in expected.items():
        if not torch.equal(_at(name, found), weight.to(_at(name, found).dtype)):
            raise ParedownError(f"transformers loaded other numbers for {name} than were written; please report this with the plan")


def _at(name: str, state: Mapping[str, Tensor]) -> Tensor:
    if name not in state:
        raise ParedownError(f"transformers did not load {name}, which was written; please report this with the plan")
    return state[name]
