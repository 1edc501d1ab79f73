"""Whole models: ours on packed kernels against torch's bfloat16, its dynamic int8, torchao, onnxruntime and OpenVINO at 4 bits.

One thread, CPU time, the least of interleaved rounds. The demos' sentences and text at 1x16 and 8x128 tokens, 1 and 8 images, a clip of speech with
its transcript, and the language model token by token behind 64 tokens; how near its logits are to float32's is the mean over every place of 128
tokens of a held-out text. ``pip install --no-deps --target FOLDER torchao onnxruntime openvino`` and ``PYTHONPATH=FOLDER`` add the rivals that torch
does not have; what is missing is left out with a word.
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from _model_rivals import ALL, OURS, RUNTIMES, TORCH, Contestant, Inputs, built
from _rows import Row, options, row, show
from paredown import models, tasks
from paredown.kernels.speed import least_seconds

BEST = "W4A8"
BASE = "torch bfloat16"
EXACT = "torch float32"
PROMPT, STEPS, TEXT = 64, 8, 128
CASES = ("sentiment 1x16", "sentiment 8x128", "vision 1", "vision 8", "speech 1", "lm 1x16", "lm 8x128", "lm decoding")
PEAKS = ("sentiment 8x128", "lm decoding")
SAMPLES = 200
MANY = 16


@dataclass(frozen=True)
class Case:
    """What runs: a demo's model and one set of inputs; ``steps`` are the tokens that follow where it generates."""

    demo: str
    inputs: Inputs
    steps: Tensor | None = None


def case_of(name: str, loaded: models.LoadedModel, task: tasks.Task) -> Case:
    demo, _, shape = name.partition(" ")
    if demo in ("vision", "speech"):
        inputs = next(_first(task, 8)).inputs
        return Case(demo, {name: tensor[: int(shape)] for name, tensor in inputs.items()})
    rows, length = (1, PROMPT + STEPS) if shape == "decoding" else map(int, shape.split("x"))
    ids = real_tokens(task, rows * length).reshape(rows, length)
    if shape == "decoding":
        return Case(demo, {"input_ids": ids[:, :PROMPT]}, ids[:, PROMPT:])
    return Case(demo, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def _first(task: tasks.Task, samples: int) -> Iterator[Any]:
    return iter(task.batches("held_out", samples))


def real_tokens(task: tasks.Task, count: int) -> Tensor:
    """Tokens of held-out samples, one after the other."""
    found: list[Tensor] = []
    for batch in task.batches("held_out"):
        mask = batch.inputs.get("attention_mask")
        ids = batch.inputs["input_ids"]
        found.append(ids.flatten() if mask is None else ids[mask.bool()])
        if sum(map(len, found)) >= count:
            break
    return torch.cat(found)[:count]


def job_of(case: Case, made: Contestant) -> tuple[Callable[[], object], Callable[[], Tensor], int]:
    """What is timed, what gives the logits, and how many times the timed work is done in it."""
    if case.steps is None:
        return lambda: made.run(case.inputs), lambda: made.run(case.inputs), 1
    steps = case.steps
    if made.model is None:  # a graph for one step behind the prompt
        return lambda: made.run(case.inputs), lambda: made.run(case.inputs), 1
    model = made.model
    cache = model(**case.inputs, use_cache=True).past_key_values

    def decode() -> Tensor:
        logits = [model(input_ids=steps[:, i : i + 1], past_key_values=cache, use_cache=True).logits for i in range(STEPS)]
        cache.crop(-STEPS)
        return torch.cat(logits, 1)

    return decode, lambda: decode()[:, :1], STEPS


def one_step(case: Case, model: torch.nn.Module) -> Inputs:
    """The inputs of the first step behind the prompt, with the cache that exact weights fill."""
    assert case.steps is not None
    cache = model(**case.inputs, use_cache=True).past_key_values
    return {"input_ids": case.steps[:, :1], "position_ids": torch.tensor([[PROMPT]]), "past_key_values": cache}  # type: ignore[dict-item]


def compared(name: str, rounds: int) -> list[Row]:
    loaded, task = opened(name)
    case = case_of(name, loaded, task)
    made: dict[str, Contestant] = {}
    work: dict[str, tuple[Callable[[], object], Callable[[], Tensor], int]] = {}
    for contestant in ALL:
        with torch.no_grad():
            step = case.steps is not None and contestant in RUNTIMES
            given = Case(case.demo, one_step(case, loaded.model)) if step else case
            found = built(contestant, loaded.model, given.inputs)
        if isinstance(found, str):
            print(f"{name}: {contestant} is left out: {found}", flush=True)
            continue
        made[contestant] = found
        with torch.inference_mode():
            work[contestant] = job_of(given, found)
    with torch.inference_mode():
        seconds = least_seconds({each: job for each, (job, _, _) in work.items()}, rounds)
        seconds = {each: value / work[each][2] for each, value in seconds.items()}
        exact = work[EXACT][1]().float()
        enough = exact.numel() >= MANY and case.steps is None  # two logits point nowhere else
        near = {each: cosine(logits().float(), exact) for each, (_, logits, _) in work.items() if each != EXACT and enough}
    rows = [row(f"{name}: {each} against {BASE}", seconds[each] * 1e3, "ms", seconds[BASE] * 1e3) for each in OURS if each in made]
    rivals = [each for each in made if each not in OURS and each != BASE]
    rows += [row(f"{name}: {BEST} against {each}", seconds[BEST] * 1e3, "ms", seconds[each] * 1e3) for each in rivals]
    rows += [Row(f"{name}: cosine of the logits to float32, {each}", value, None, None, "1") for each, value in near.items()]
    if case.steps is not None:
        rows += places(name, task, loaded, made)
    if name in PEAKS:
        rows += [
            row(f"{name}: weights, {BEST} against {each}", made[BEST].bytes / 1e6, "MB", made[each].bytes / 1e6) for each in (*rivals, BASE)
        ]
        rows += accuracies(task, made) if name.startswith("sentiment") else []
    return rows


def places(name: str, task: tasks.Task, loaded: models.LoadedModel, made: dict[str, Contestant]) -> list[Row]:
    """Cosine of the logits to float32's at every place of a text, given the tokens before, mean over the places."""
    ids = real_tokens(task, TEXT)[None]
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    rows: list[Row] = []
    with torch.inference_mode():
        exact = made[EXACT].run(text)[0].double()
    for each, contestant in made.items():
        found = contestant if contestant.model is not None else built(each, loaded.model, text)  # a graph takes one shape
        if each == EXACT or isinstance(found, str):
            continue
        with torch.inference_mode():
            near = functional.cosine_similarity(found.run(text)[0].double(), exact, dim=1).mean()
        rows.append(Row(f"{name}: cosine of the logits to float32, mean of {TEXT} places of a text, {each}", float(near), None, None, "1"))
    return rows


def opened(name: str) -> tuple[models.LoadedModel, tasks.Task]:
    demo = f"demo:{name.partition(' ')[0]}"
    loaded = models.load(demo)
    loaded.model.eval()
    return loaded, tasks.load(demo, loaded)


def cosine(found: Tensor, exact: Tensor) -> float:
    return float(functional.cosine_similarity(found.flatten().double(), exact.flatten().double(), dim=0))


def accuracies(task: tasks.Task, made: dict[str, Contestant]) -> list[Row]:
    """Accuracy, and cosine of all logits to those of float32, on held-out sentences as they are."""
    batches = task.batches("held_out", SAMPLES)
    found: dict[str, Tensor] = {}
    with torch.inference_mode():
        for name, contestant in made.items():
            if contestant.model is not None:
                found[name] = torch.cat([contestant.run(batch.inputs).float() for batch in batches])
    targets = torch.cat([batch.targets for batch in batches if batch.targets is not None])
    rows = [
        Row(f"sentiment, {SAMPLES} reviews: accuracy, {name}", float((y.argmax(1) == targets).double().mean()), None, None, "1")
        for name, y in found.items()
    ]
    return rows + [
        Row(f"sentiment, {SAMPLES} reviews: cosine of the logits to float32, {name}", cosine(y, found[EXACT]), None, None, "1")
        for name, y in found.items()
    ]


def peaks(name: str) -> list[Row]:
    """Peak memory of running, above that of a process with the libraries and no model: each contestant in a process of its own."""
    found: dict[str, float] = {}
    for contestant in (BEST, *TORCH):
        done = subprocess.run([sys.executable, __file__, "--peak", name, contestant], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.split():
            found[contestant] = float(done.stdout.split()[-1]) / 1e6
    return [row(f"{name}: peak memory, {BEST} against {each}", found[BEST], "MB", value) for each, value in found.items() if each != BEST]


def print_peak(name: str, contestant: str) -> None:
    before = _memory("VmRSS")
    loaded, task = opened(name)
    case = case_of(name, loaded, task)
    made = built(contestant, loaded.model, case.inputs)
    if isinstance(made, str):
        sys.exit(made)
    del loaded, task
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    with torch.inference_mode():
        job_of(case, made)[0]()
    print(_memory("VmHWM") - before)


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main() -> None:
    arguments = options(__doc__)
    arguments.add_argument("--rounds", type=int, default=8)
    arguments.add_argument("--cases", default=",".join(CASES), help="comma separated")
    arguments.add_argument("--peak", nargs=2, metavar=("CASE", "CONTESTANT"), help="print the peak memory of one, in bytes")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    if given.peak:
        return print_peak(*given.peak)
    rows: list[Row] = []
    for name in given.cases.split(","):
        rows += compared(name, given.rounds)
        rows += peaks(name) if name in PEAKS and Path("/proc/self/clear_refs").exists() else []
        show(f"Whole models on this CPU, up to {name}", rows, given.json)  # after each case: all of them take long
    return None


if __name__ == "__main__":
    main()
