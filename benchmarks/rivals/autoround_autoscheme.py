"""Intel AutoRound's AutoScheme: its DeltaLoss score of every width, and its dynamic program.

`GenScheme` is what AutoRound's compressor calls; it is called here without the compressor, which wants a model that generates text.

- Its data loader is replaced by the request's tokens: it would take texts from a file, tokenize them and drop the short ones.
  The loss is the model's own, with the labels of the calibration data.
- Its asymmetric integers have the range of each group, as Paredown's. Asymmetric 8 bits, which it refuses because some formats can't
  hold them, are allowed by its own switch. Scales and zero points are left out of the bits, as with the other rival.
- It scores once for all targets, through its cache on disk.
- Causal language models run at its default, block after block (``low_gpu_mem_usage``), but stay in memory. That mode scores what lies in
  blocks alone, so others run backwards through the whole model, its other mode. Both run every block twice forwards.
- Embeddings are not scored by it ("not supported in AutoScheme"), and are left out of the request.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any
from unittest.mock import patch

_cache = tempfile.TemporaryDirectory()
os.environ |= {"AR_ALLOW_W8_ASYM": "1", "AR_AUTO_SCHEME_CACHE": _cache.name, "AR_LOG_LEVEL": "WARNING"}

import torch  # noqa: E402
from _request import IGNORED, Counter, Request, Sample, answer, spent  # noqa: E402
from auto_round.auto_scheme import delta_loss  # noqa: E402
from auto_round.auto_scheme.gen_auto_scheme import AutoScheme, GenScheme  # noqa: E402
from auto_round.schemes import QuantizationScheme  # noqa: E402


def solve(request: Request, _counter: Counter) -> tuple[dict[float, dict[str, int]], float, float, str]:
    causal = type(request.model).__name__.endswith("ForCausalLM")
    scheme = AutoScheme(
        avg_bits=request.targets[0],
        options=[
            QuantizationScheme(bits=bits, group_size=request.group_size, sym=request.symmetric, data_type="int", act_bits=16)
            for bits in request.bits
        ],
        shared_layers=[group for group in request.groups if len(group) > 1],
        ignore_scale_zp_bits=True,
        nsamples=sum(len(batch.targets) for batch in request.batches),
        batch_size=len(request.batches[0].targets),
        low_gpu_mem_usage=causal,
        low_cpu_mem_usage=False,
        device_map="cpu",
        enable_torch_compile=False,
    )
    generator = GenScheme(scheme, request.model, request.layers, {}, dataset="request", device_map="cpu", tokenizer=object())
    widths: dict[float, dict[str, int]] = {}
    seconds = []
    with patch.object(delta_loss, "get_dataloader", lambda *_, **__: [arguments(batch) for batch in request.batches]):
        for target in [request.targets[0], *request.targets]:  # the first one scores, and all of them are solved from the cache
            scheme.avg_bits = target
            started = time.process_time()
            chosen = generator.get_layer_config()
            seconds.append(spent(started))
            widths[target] = {name: chosen[name]["bits"] for name in request.layers}
    solving = sum(seconds[1:])
    return (
        widths,
        seconds[0] - seconds[1],
        solving,
        "every block runs forwards again for the backward pass, which forward_tokens leaves out",
    )


def arguments(batch: Sample) -> dict[str, Any]:
    """Keyword arguments with labels: those of positions stand where the token is, not where it is predicted.

    Pixels get a gradient: of weights it forms none by autograd, so that nothing else would carry one to the first layers.
    """
    labels = batch.targets
    if labels.dim() == 2:
        labels = torch.cat([torch.full_like(labels[:, :1], IGNORED), labels[:, :-1]], 1)
    inputs = {name: value.detach().requires_grad_(value.is_floating_point()) for name, value in batch.inputs.items()}
    return {**inputs, "labels": labels}


if __name__ == "__main__":
    answer(solve, "auto-round")
