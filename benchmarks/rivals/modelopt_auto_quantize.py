"""NVIDIA ModelOpt's `auto_quantize` with custom formats: its gradient score, its grouping, its linear program.

- The formats round as Paredown's `quantize` does (a backend of `register_quant_backend`, their way to bring a quantizer of one's own), so
  that what is scored is what is measured; theirs has no zero points. Budgets are counted in bits of the codes, as it counts custom formats.
- The score needs a loss: cross-entropy with the labels of the calibration data. It is multiplied by 1000, for scores of a mean are so small
  that the tolerances of the linear program's solver are not: at 6 bits on demo:sentiment it then misses the optimum by 5 %.
- Weights alone are rounded, so the calibration, which runs the data for each format, is given one batch.
- "Do not quantize" is not offered: the widths of the request are. Groups that are decided together are those of the request.
- What is not linear is outside its search; embeddings are left out of the request.
"""

from __future__ import annotations

import time
from typing import Any

import modelopt.torch.quantization as mtq
import torch
from _request import Counter, Request, Sample, answer, loss, spent
from modelopt.torch.quantization.algorithms import AutoQuantizeGradientSearcher
from modelopt.torch.quantization.nn.modules.tensor_quantizer import register_quant_backend
from torch import Tensor

SMALLEST_SCALE = 2.0**-24  # of float16
WEIGHT = ".weight_quantizer"


def solve(request: Request, counter: Counter) -> tuple[dict[float, dict[str, int]], float, float, str]:
    group_of = {name: group[0] for group in request.groups for name in group}
    AutoQuantizeGradientSearcher.quant_grouping_rules = [lambda _model, name: group_of.get(name)]
    register_quant_backend("paredown", rounded)
    offered = [custom_format(bits, request) for bits in request.bits]

    def forward_step(model: Any, batch: Sample) -> Tensor:
        return model(**batch.inputs).logits

    started = time.process_time()
    _, state = mtq.auto_quantize(
        request.model,
        constraints={"effective_bits": 16.0},  # nothing is decided yet, and layers outside the request count
        quantization_formats=offered,
        module_search_spaces=[{"module_name_patterns": request.layers, "quantization_formats": offered, "allow_no_quant": False}],
        disabled_layers=[name for name, _ in request.model.named_modules() if name and name not in set(request.layers)],
        data_loader=request.batches,
        forward_step=forward_step,
        loss_func=lambda logits, batch: 1000 * loss(logits, batch.targets),
        num_calib_steps=1,
        num_score_steps=len(request.batches),
        method="gradient",
    )
    scoring = spent(started)

    started = time.process_time()
    widths: dict[float, dict[str, int]] = {}
    decided = {name: stat for name, stat in state["candidate_stats"].items() if set(stat["module_names"]) <= set(request.layers)}
    state = {**state, "candidate_stats": decided, "cost_denominator": None}  # which is then that of the request's layers
    for target in request.targets:
        entries = mtq.get_auto_quantize_config(state, {"effective_bits": target})["quant_cfg"]
        weights = {entry["quantizer_name"].removesuffix(WEIGHT): entry["cfg"] for entry in entries if "cfg" in entry}
        widths[target] = {layer: weights[layer]["num_bits"] for layer in request.layers}
    return widths, scoring, spent(started), ""


def custom_format(bits: int, request: Request) -> dict[str, Any]:
    options = {"bits": bits, "group_size": request.group_size, "symmetric": request.symmetric}
    weights = {"num_bits": bits, "block_sizes": {-1: request.group_size}, "backend": "paredown", "backend_extra_args": options}
    return {
        "quant_cfg": [
            {"quantizer_name": "*weight_quantizer", "cfg": weights},
            {"quantizer_name": "*input_quantizer", "enable": False},
        ],
        "algorithm": "max",
    }


def rounded(weight: Tensor, quantizer: Any) -> Tensor:
    """The weight [out, in] on the grid of the range of each group, scales in float16; as `paredown.methods.quantize`."""
    options = quantizer.backend_extra_args
    groups = weight.detach().float().unflatten(-1, (-1, options["group_size"]))
    largest = 2 ** options["bits"] - 1
    low, high = torch.aminmax(groups, dim=-1, keepdim=True)
    if options["symmetric"]:
        scale = torch.maximum(-low, high) / (largest / 2)
    else:
        low, high = low.clamp(max=0), high.clamp(min=0)
        scale = (high - low) / largest
    scale = scale.half().float().clamp(min=SMALLEST_SCALE)
    zero = torch.full_like(scale, (largest + 1) / 2) if options["symmetric"] else (-low / scale).round()
    codes = ((groups / scale).round() + zero).clamp(0, largest)
    return ((codes - zero) * scale).flatten(-2).to(weight.dtype)


if __name__ == "__main__":
    answer(solve, "nvidia-modelopt", "PuLP")
