r"""A share of every block, by how much the block matters (MoDeGPT, Lin et al. 2025).

Block i loses the share \(\varphi_i = L \bar\varphi \, \mathrm{softmax}(-s / \epsilon)_i\) of its MLP's channels, of its heads' query-key
dimensions and of its values' rank, where s is the block influence. Shares above a limit are cut to it, and the others take over in
proportion, so that the mean stays \(\bar\varphi\).

Blocks are shrunk in order, each by moments measured on the model whose earlier blocks are shrunk already: these are the inputs that it
will have, and its least squares fit makes up for some of what the earlier ones lost. The influences are those of the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from paredown.errors import ParedownError
from paredown.structure.anatomy import find_blocks
from paredown.structure.fitting import Fractions, fit_block_
from paredown.structure.inputs import influences
from paredown.structure.removal import drop_blocks_
from paredown.tasks import Batch, Task

TEMPERATURE = 0.1
"""ε: the smaller, the more the blocks of little influence lose of all that is lost."""

LIMIT = 0.8
"""No block loses more than this share."""

Progress = Callable[[int, int, str], None]
"""Told how many steps are done, of how many, and what is next."""


def allocation(influence: Sequence[float], share: float, *, temperature: float = TEMPERATURE, limit: float = LIMIT) -> list[float]:
    """What share each block loses.

    Args:
        influence: s, of each block.
        share: Mean of the shares, from 0 to the limit.
        temperature: ε.
        limit: The largest share.

    Returns:
        Shares from 0 to the limit, whose mean is `share`.

    Raises:
        ParedownError: If the mean can't be reached, or the temperature isn't positive.

    Example:
        >>> [round(lost, 3) for lost in allocation([0.3, 0.1, 0.1, 0.3], 0.5)]
        [0.2, 0.8, 0.8, 0.2]
    """
    if not 0 <= share <= limit <= 1 or not temperature > 0:
        raise ParedownError(
            f"expected a share to lose from 0 to the limit of {limit:g} and a temperature above 0, got {share:g} and {temperature:g}"
        )
    scores = -np.asarray(influence, float) / temperature
    weights = np.exp(scores - scores.max())
    shares, free, total = np.zeros(len(weights)), np.ones(len(weights), bool), share * len(weights)
    while total > 0 and free.any():  # blocks at the limit leave the rest to the others
        shares[free] = (total - limit * (~free).sum()) * weights[free] / max(weights[free].sum(), np.finfo(float).tiny)
        above = free & (shares > limit)
        shares[above] = limit
        if not above.any():
            break
        free &= ~above
    return shares.tolist()


def modegpt_(
    model: nn.Module,
    task: Task,
    batches: Sequence[Batch],
    keep: float,
    *,
    temperature: float = TEMPERATURE,
    limit: float = LIMIT,
    progress: Progress = lambda done, total, what: None,
) -> list[str]:
    """Keep a share of the parameters in the blocks.

    Args:
        model: It is changed.
        task: How it is run.
        batches: Calibration data.
        keep: The share that stays, such as 0.8; whole channels, ranks and pairs make it approximate.
        temperature: As in `allocation`.
        limit: As in `allocation`.
        progress: Told of each block.

    Returns:
        What each block lost, what was left alone and why; in words.
    """
    blocks = find_blocks(model)
    measured = influences(model, task, batches, blocks)
    shares = allocation([measured[block.path] for block in blocks], 1 - keep, temperature=temperature, limit=limit)
    notes: list[str] = []
    for index, (block, share) in enumerate(zip(blocks, shares, strict=True)):
        progress(index, len(blocks), block.path)
        left = 1 - share
        notes.append(f"{block.path}: influence {measured[block.path]:.3f}, loses {share:.0%}")
        notes += fit_block_(model, task, batches, block.path, Fractions(mlp=left, qk=left, vo=left))
    progress(len(blocks), len(blocks), "")
    return notes


def drop_least_influential_(model: nn.Module, task: Task, batches: Sequence[Batch], dropped: int) -> list[str]:
    """Drop the blocks of the least influence, all ranked once (Men et al. 2024, ShortGPT); no stack loses its last block.

    Args:
        model: It is changed.
        task: How it is run.
        batches: Calibration data.
        dropped: How many.

    Returns:
        What was dropped, in words.

    Raises:
        ParedownError: If there are not that many.
    """
    blocks = find_blocks(model)
    measured = influences(model, task, batches, blocks)
    left = {stack: sum(block.stack == stack for block in blocks) for stack in {block.stack for block in blocks}}
    if not 0 < dropped <= len(blocks) - len(left):
        raise ParedownError(f"expected to drop 1 to {len(blocks) - len(left)} of {len(blocks)} blocks, got {dropped}")
    paths: list[str] = []
    for block in sorted(blocks, key=lambda block: measured[block.path]):
        if len(paths) < dropped and left[block.stack] > 1:
            left[block.stack] -= 1
            paths.append(block.path)
    drop_blocks_(model, paths)
    return [f"{path}: dropped, influence {measured[path]:.3f}" for path in paths]
