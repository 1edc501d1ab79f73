"""Language modelling: perplexity on sliding windows of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from paredown.errors import ParedownError
from paredown.models import LoadedModel
from paredown.specs import Shown, Split
from paredown.tasks.base import IGNORED, Batch, Predictions, Scores, Task, check_split, chosen, counted, cross_entropy, inputs_for, require
from paredown.tasks.showing import pieces


def windows(tokens: Tensor, window: int, stride: int) -> tuple[Tensor, Tensor]:
    """Cut a text into windows, each `stride` further; every token is counted in the first window that can predict it.

    With ``stride == window`` they don't overlap, and the first token of each has no context and is not counted. With a smaller
    stride the start of each later window is context alone: slower, and closer to the perplexity of the whole text.

    Args:
        tokens: [length].
        window: Tokens of a window.
        stride: Tokens from one window's start to the next one's.

    Returns:
        Inputs [windows, window] and targets [windows, window]; targets are shifted by one, and `IGNORED` where not counted.
        Tokens behind the last whole window are left out.
    """
    inputs = tokens.unfold(0, window, stride).clone()
    targets = torch.full_like(inputs, IGNORED)
    targets[:, :-1] = inputs[:, 1:]
    targets[1:, : max(window - stride - 1, 0)] = IGNORED  # the window before has counted these
    return inputs, targets


class LanguageModelling(Task):
    """A text for a causal language model. A sample is one window.

    Args:
        loaded: A model with a language modelling head, and its tokenizer.
        calibration: Text to calibrate on.
        held_out: Another text, which results are measured on.
        window: Tokens of a window.
        stride: Tokens from one window to the next; `window` where not given.
        batch_size: Windows in a batch.
        name: Identifies the task.
        label: The task in words.
        default_samples: Windows of each split that are taken by default; all where not given.

    Raises:
        ParedownError: If the model has no tokenizer, a text is shorter than one window, or the window or stride is impossible.
    """

    unit: Literal["sample", "token"] = "token"
    metric = "perplexity"
    higher_is_better = False
    offers_probabilities = True
    takes_bfloat16 = True

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        calibration: str,
        held_out: str,
        window: int = 256,
        stride: int | None = None,
        batch_size: int = 4,
        name: str = "language-modelling",
        label: str = "Language modelling",
        default_samples: Mapping[Split, int] | None = None,
    ) -> None:
        self.name, self.label, self.batch_size = name, label, batch_size
        if not callable(loaded.processor):
            raise ParedownError(
                f"expected a tokenizer with {loaded.id}, it has none; save one into its folder with tokenizer.save_pretrained(folder)"
            )
        tokenize: Any = loaded.processor
        most = getattr(getattr(loaded.model, "config", None), "max_position_embeddings", None)
        step = window if stride is None else stride
        if window < 2 or (most is not None and window > most):
            raise ParedownError(f"window must be from 2 to {most or 'any number of'} tokens for {loaded.id}, got {window}")
        if not 1 <= step <= window:
            raise ParedownError(f"stride must be from 1 to the window's {window} tokens, got {step}")
        self._tokenizer: Any = loaded.processor
        self._windows: dict[Split, tuple[Tensor, Tensor]] = {}
        texts: tuple[tuple[Split, str], ...] = (("calibration", calibration), ("held_out", held_out))
        for split, text in texts:
            encoded: list[int] = tokenize(text, truncation=False, verbose=False, add_special_tokens=False)["input_ids"]
            if len(encoded) < window:
                raise ParedownError(
                    f"expected at least one window of {window} tokens in the {split} text, got {len(encoded)} tokens; give a longer text or a smaller window"
                )
            self._windows[split] = windows(torch.tensor(encoded), window, step)
        self.default_samples = default_samples or {split: len(inputs) for split, (inputs, _) in self._windows.items()}

    @override
    def batches(self, split: Split, limit: int | None = None) -> Sequence[Batch]:
        check_split(split)
        inputs, targets = self._windows[split]
        cuts = chosen([0] * len(inputs), limit, self.default_samples[split], self.batch_size)
        return [Batch({"input_ids": inputs[rows]}, targets[rows], tuple(rows)) for rows in cuts]

    @override
    def predictions(self, model: nn.Module, batch: Batch) -> Predictions:
        return counted(model(**inputs_for(model, batch), use_cache=False).logits, batch)

    @override
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return cross_entropy(self.predictions(model, batch), batch)

    @override
    @torch.no_grad()
    def scores(self, model: nn.Module, batches: Sequence[Batch], predictions: Sequence[Predictions] | None = None) -> Scores:
        losses: list[Tensor] = []
        for i, batch in enumerate(batches):
            require(batch.targets, batch, self.metric)
            predicted = predictions[i] if predictions is not None else self.predictions(model, batch)
            losses.append(cross_entropy(predicted, batch).double().cpu())
        units = torch.cat([self.units(batch) for batch in batches]).double()
        return Scores(np.asarray(torch.cat(losses)), np.asarray(units), "exp")

    @override
    def shown(self, split: Split, index: int) -> Shown:
        inputs, targets = (rows[index] for rows in self._windows[split])
        counted_places = (targets != IGNORED).nonzero()[:, 0]
        read = self.words(inputs.tolist())
        ends = np.cumsum([len(piece) for piece in read])
        return Shown(index, "".join(read), tuple(self.words(targets[counted_places].tolist())), tuple(ends[counted_places].tolist()))

    @override
    def words(self, answers: Sequence[int]) -> list[str]:
        return pieces(self._tokenizer, answers)
