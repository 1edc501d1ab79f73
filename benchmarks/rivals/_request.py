"""What a driver is asked and what it answers; it runs in the rival's environment, so nothing of Paredown is imported here.

The folder that it is called with holds ``request.json``, ``batches.safetensors`` (``INDEX.inputs.NAME``, ``INDEX.targets``) and ``model``,
a folder of transformers; the answer goes into ``response.json`` beside them. `_search_rivals.py` writes the one and reads the other.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

IGNORED = -100


@dataclass(frozen=True)
class Sample:
    """One calibration batch: keyword arguments of the model, and the class of each sample or position, aligned with the logits."""

    inputs: Mapping[str, Tensor]
    targets: Tensor

    @property
    def tokens(self) -> int:
        """Positions that are computed, padding included; images and audio count as one each."""
        ids = self.inputs.get("input_ids")
        return len(self.targets) if ids is None else ids.numel()


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes:
        model: In evaluation mode, float32, without dropout, which a rival may switch on.
        layers: Names of the linear layers to decide, groups that are decided together stand in `groups`.
        groups: Layers that get the same width.
        bits: The offered widths.
        group_size: Inputs that share a scale and a zero point.
        symmetric: Without zero points.
        targets: Mean bits of a weight of `layers`, scales left out.
        batches: Calibration data.
        seed: Of whatever the rival draws.
    """

    model: nn.Module
    layers: list[str]
    groups: list[list[str]]
    bits: list[int]
    group_size: int
    symmetric: bool
    targets: list[float]
    batches: list[Sample]
    seed: int


class Counter:
    """Tokens that a model was run on, forwards and backwards, by hooks on its output."""

    def __init__(self, model: nn.Module) -> None:
        self.forward = self.backward = 0
        model.register_forward_hook(self._count, with_kwargs=True)

    def _count(self, _model: nn.Module, _args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        tokens = Sample({k: v for k, v in kwargs.items() if k == "input_ids"}, output.logits).tokens
        self.forward += tokens
        if output.logits.requires_grad:
            output.logits.register_hook(lambda _gradient: self._back(tokens))

    def _back(self, tokens: int) -> None:
        self.backward += tokens


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over what is counted."""
    return nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED)


def answer(solve: Callable[[Request, Counter], tuple[Mapping[float, Mapping[str, int]], float, float, str]], *packages: str) -> None:
    """Read the request of the folder in ``sys.argv``, solve it, write the response.

    Args:
        solve: From the request to the width of each layer at each target, CPU seconds of scoring and of solving, and a note.
        packages: Distributions whose versions are told.
    """
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    asked = json.loads((folder / "request.json").read_text())
    torch.manual_seed(asked["seed"])
    random.seed(asked["seed"])
    model = _model(folder / "model")
    counter = Counter(model)
    widths, scoring, solving, note = solve(Request(model=model, batches=_batches(folder / "batches.safetensors"), **asked), counter)
    response = {
        "allocations": [{"target": target, "bits": dict(bits)} for target, bits in widths.items()],
        "scoring_seconds": scoring,
        "solving_seconds": solving,
        "forward_tokens": counter.forward,
        "backward_tokens": counter.backward,
        "versions": {name: version(name) for name in (*packages, "torch", "transformers")},
        "note": note,
    }
    (folder / "response.json").write_text(json.dumps(response))


def spent(started: float) -> float:
    """CPU seconds since then."""
    return time.process_time() - started


def _model(folder: Path) -> nn.Module:
    config = transformers.AutoConfig.from_pretrained(folder)
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    cls = getattr(transformers, config.architectures[0])
    return cls.from_pretrained(folder, config=config, dtype=torch.float32).eval().requires_grad_(False)


def _batches(file: Path) -> list[Sample]:
    inputs: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)
    targets: dict[int, Tensor] = {}
    for name, tensor in load_file(file).items():
        index, _, rest = name.partition(".")
        if rest == "targets":
            targets[int(index)] = tensor
        else:
            inputs[int(index)][rest.removeprefix("inputs.")] = tensor
    return [Sample(inputs[index], targets[index]) for index in sorted(targets)]
