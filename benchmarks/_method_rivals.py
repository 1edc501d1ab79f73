"""Well-kept implementations of the methods, each called by its own function on one layer.

llm-compressor and auto-round import data sets and whole pipelines that their functions on tensors don't use: `datasets`, which is 50 MB with
what it needs, is stood in for by an empty module, and llm-compressor's packages are entered without running what they import at first.
Versions are pinned against each other more tightly than these functions need: llm-compressor asks for older transformers and
compressed-tensors than Paredown. Whoever is missing raises `MissingRivalError` with the reason.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.machinery import ModuleSpec
from typing import Any

import torch
from torch import Tensor, nn


class MissingRivalError(Exception):
    """A rival that can't be run here, and why."""


class _Empty(types.ModuleType):
    """A module in which every name is a class of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__, self.__path__ = ModuleSpec(name, None), []

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def load(distribution: str, module: str, *bare: str) -> Any:
    """A module of a rival; the packages named bare are entered without running their ``__init__``."""
    try:
        folder = metadata.distribution(distribution)
        if "datasets" not in sys.modules:
            sys.modules["datasets"] = _Empty("datasets")
        for name in bare:
            package = types.ModuleType(name)
            package.__path__ = [str(folder.locate_file(name.replace(".", "/")))]
            sys.modules.setdefault(name, package)
        return importlib.import_module(module)
    except ImportError as error:  # PackageNotFoundError is one
        raise MissingRivalError(
            f"{distribution} can't be imported here ({error}); pip install -c constraints.txt --no-deps --group bench-methods"
        ) from error


def _llm_compressor(module: str) -> Any:
    packages = ("", ".modifiers", ".modifiers.gptq", ".modifiers.pruning", ".modifiers.pruning.sparsegpt", ".modifiers.pruning.wanda")
    return load("llmcompressor", f"llmcompressor.{module}", *(f"llmcompressor{name}" for name in packages))


def gptq(bits: int, group: int, *, symmetric: bool, observer: str) -> Callable[[Tensor, Tensor], Tensor]:
    """llm-compressor's, with its default order and damping: from weight and moment to the rounded weight.

    Args:
        bits: Of a code.
        group: Inputs that share a scale.
        symmetric: Without zero points.
        observer: ``memoryless_minmax``, its default, or ``memoryless_mse``, which searches the range.
    """
    quantize_weight = _llm_compressor("modifiers.gptq.gptq_quantize").quantize_weight
    _llm_compressor("observers")
    from compressed_tensors.quantization import QuantizationArgs
    from llmcompressor.observers import Observer

    arguments = QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy="group", group_size=group, actorder="static")

    def run(weight: Tensor, moment: Tensor) -> Tensor:
        ranges = Observer.load_from_registry(observer, base_name="weight", args=arguments)(weight).get_qparams()
        scale, zero = (ranges[name].unsqueeze(0) for name in ("scale", "zero_point"))
        return quantize_weight(weight[None].clone(), moment[None].clone(), scale, zero, None, arguments)[0][0]

    return run


def sparse_gpt(fraction: float, n_of_m: tuple[int, int] | None) -> Callable[[Tensor, Tensor], Tensor]:
    """llm-compressor's, with its default block and damping: from weight and moment to the pruned weight."""
    sparsify = _llm_compressor("modifiers.pruning.sparsegpt.sgpt_sparsify").sparsify_weight
    drop, among = (0, 0) if n_of_m is None else (n_of_m[1] - n_of_m[0], n_of_m[1])

    def run(weight: Tensor, moment: Tensor) -> Tensor:
        layer = _linear(weight)
        return sparsify(layer, {layer: moment.clone()}, fraction, drop, among, 128, 0.01, preserve_sparsity_mask=False)[1]

    return run


def wanda(fraction: float, n_of_m: tuple[int, int] | None) -> Callable[[Tensor, Tensor], Tensor]:
    """llm-compressor's: from weight and moment to the pruned weight."""
    sparsify = _llm_compressor("modifiers.pruning.wanda.wanda_sparsify").sparsify_weight
    drop, among = (0, 0) if n_of_m is None else (n_of_m[1] - n_of_m[0], n_of_m[1])

    def run(weight: Tensor, moment: Tensor) -> Tensor:
        layer = _linear(weight)
        return sparsify(layer, {layer: moment.diagonal().clone()}, fraction, drop, among)

    return run


def hqq(bits: int, group: int, *, whole: bool = False) -> Callable[[Tensor], Tensor]:
    """torchao's, whose zero points are any numbers: from weight to the rounded weight, scales and zero points in float16.

    Args:
        bits: Of a code.
        group: Inputs that share a scale and zero point.
        whole: Zero points are rounded to codes, as files of packed integers hold them, and the weights to the grid that is left.
    """
    module = load("torchao", "torchao.quantization.quant_primitives")
    choose = module._choose_qparams_and_quantize_affine_hqq
    largest = (1 << bits) - 1

    def run(weight: Tensor) -> Tensor:
        codes, scale, zero, _ = choose(weight, nbits=bits, group_size=group, compute_dtype=torch.float16, device="cpu", raw_output=True)
        scale, zero = scale.float().unsqueeze(-1), zero.float().unsqueeze(-1)
        groups = codes.view(len(weight), -1, group).float()
        if whole:
            zero = zero.round().clamp(0, largest)
            groups = (weight.view_as(groups) / scale + zero).round().clamp(0, largest)
        return ((groups - zero) * scale).view_as(weight)

    return run


def hqq_symmetric(bits: int, group: int) -> Callable[[Tensor], Tensor]:
    """torchao's, without zero points: from weight to the rounded weight, scales in float16."""
    choose = load("torchao", "torchao.quantization.quant_primitives")._choose_qparams_and_quantize_scale_only_hqq
    half = 1 << (bits - 1)

    def run(weight: Tensor) -> Tensor:
        codes, scale = choose(weight, [1, group], -half, half - 1)
        return (codes.view(len(weight), -1, group) * scale.half().float().unsqueeze(-1)).view_as(weight)

    return run


def nf4(group: int) -> Callable[[Tensor], Tensor]:
    """bitsandbytes', on its CPU backend, scales quantized too: from weight to the rounded weight."""
    functional = load("bitsandbytes", "bitsandbytes.functional")

    def run(weight: Tensor) -> Tensor:
        codes, state = functional.quantize_4bit(weight, blocksize=group, compress_statistics=True, quant_type="nf4")
        return functional.dequantize_4bit(codes, state)

    return run


def auto_round(bits: int, group: int, *, symmetric: bool, iterations: int) -> Callable[[Tensor, Sequence[Tensor]], Tensor]:
    """auto-round's quantizer, optimizer, sampler and schedule, around a block of one linear layer in float32.

    Its own loop wants a model of transformers' and its calibration; this one does the same: 8 samples an iteration, the mean squared
    error of the outputs times 1000, steps that fall from 1 / iterations, the parameters of the least loss kept. From weight and samples
    [tokens, in] to the rounded weight.
    """
    quantizers = load("auto-round", "auto_round.data_type.int")
    signs = load("auto-round", "auto_round.algorithms.quantization.sign_round.sign_sgd")
    sampling = load("auto-round", "auto_round.compressors.utils")
    quantize = quantizers.quant_tensor_sym if symmetric else quantizers.quant_tensor_asym

    def run(weight: Tensor, samples: Sequence[Tensor]) -> Tensor:
        outputs = [sample @ weight.T for sample in samples]
        count = weight.numel() // group
        offset = torch.zeros(count, group, requires_grad=True)
        low, high = (torch.ones(count, requires_grad=True) for _ in range(2))
        parameters = [offset, low, high]
        optimizer = signs.SignSGD(parameters, lr=1 / iterations, weight_decay=0)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=iterations)
        sampler = sampling.IndexSampler(len(samples), min(8, len(samples)))
        least, best = float("inf"), parameters
        for _ in range(iterations):
            chosen = [int(index) for index in sampler.next_batch()]
            for factor in (low, high):
                factor.data.clamp_(0, 1)
            made = quantize(weight, bits=bits, group_size=group, v=offset, min_scale=low, max_scale=high)[0]
            inputs, wanted = (torch.cat([values[index] for index in chosen]) for values in (samples, outputs))
            loss = nn.functional.mse_loss(inputs @ made.T, wanted)
            if float(loss) < least:
                least, best = float(loss), [parameter.detach().clone() for parameter in parameters]
            (loss * 1000).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        with torch.no_grad():
            return quantize(weight, bits=bits, group_size=group, v=best[0], min_scale=best[1], max_scale=best[2])[0]

    return run


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer
