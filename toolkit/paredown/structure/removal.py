"""Take pieces out of a model, in place: what is left computes what the whole one would with those pieces at zero.

Choosing the pieces and making up for them is the matter of `paredown.structure.fitting`. Whoever puts an attention
back gives all of them their places in the cache again, with `renumber_`: two in one place would read each other's keys.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from paredown.errors import ParedownError
from paredown.methods.attention_rank import ValueOutput
from paredown.shrunk_modules import Empty, NoAttention, Nothing
from paredown.structure import projections
from paredown.structure.anatomy import Attention, Block, Mlp, Piece, find_blocks
from paredown.structure.projections import Side

_COUNTS = ("num_heads", "num_attention_heads", "n_heads")
_WIDTHS = ("all_head_size", "inner_dim", "split_size")
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def keep_channels_(model: nn.Module, mlp: Mlp, kept: Tensor, weight: Tensor | None = None) -> None:
    """Keep some channels of an MLP.

    Args:
        model: It is changed.
        mlp: From `paredown.structure.find_blocks`.
        kept: Which channels stay, int64 [kept], ascending.
        weight: What the projection from them becomes, [out, kept]; its own columns where None.
    """
    for path in mlp.inputs:
        rows = projections.narrowed(projections.outputs(model, path), kept, outputs=True)
        projections.write_outputs_(model, path, rows)
    columns = projections.narrowed(projections.inputs(model, mlp.output), kept, outputs=False)
    projections.write_inputs_(model, mlp.output, _with(columns, weight))


def keep_heads_(model: nn.Module, attention: Attention, kept: Tensor, weight: Tensor | None = None) -> None:
    """Keep some heads; with grouped queries some key-value heads, each with all queries that share it.

    With a position bias for every head, which all blocks share, the heads keep their places and only their weights go.

    Args:
        model: It is changed.
        attention: From `paredown.structure.find_blocks`.
        kept: Which key-value heads stay, int64 [kept], ascending.
        weight: What the output projection becomes, [out, kept × inputs of a unit]; its own columns where None.

    Raises:
        ParedownError: If this attention can't lose heads.
    """
    check(attention, "heads")
    select = projections.hidden if attention.position_bias else projections.narrowed
    sides = _projected(model, attention)
    positions = {name: _units(kept, side.width // attention.key_heads) for name, side in sides.items()}
    _replace_(model, attention, {name: select(side, positions[name], outputs=True) for name, side in sides.items()})
    columns = select(projections.inputs(model, attention.o), positions["q"], outputs=False)
    projections.write_inputs_(model, attention.o, _with(columns, weight))
    core = model.get_submodule(attention.core)
    for name in (*_COUNTS, *_WIDTHS) if not attention.position_bias else ():
        if isinstance(getattr(core, name, None), int):
            setattr(core, name, len(positions["q"]) // (attention.head_dim if name in _COUNTS else 1))


def keep_query_key_dimensions_(model: nn.Module, attention: Attention, kept: Tensor) -> None:
    """Keep some dimensions of each head's queries and keys; the softmax keeps its scale.

    Args:
        model: It is changed.
        attention: From `paredown.structure.find_blocks`.
        kept: Which dimensions of each key-value head stay, int64 [key-value heads, kept]; its queries keep the same.

    Raises:
        ParedownError: If this attention can't lose dimensions.
    """
    check(attention, "query-key dimensions")
    sides = _projected(model, attention)
    for name, heads in (("q", attention.heads), ("k", attention.key_heads)):
        starts = torch.arange(heads)[:, None] * attention.head_dim
        positions = (kept.repeat_interleave(heads // attention.key_heads, 0) + starts).flatten()
        sides[name] = projections.hidden(sides[name], positions, outputs=True)
    _replace_(model, attention, sides)


def factor_value_output_(model: nn.Module, attention: Attention, factors: ValueOutput) -> None:
    """Put values of lower rank in place, with the output projection that reads them.

    Args:
        model: It is changed; an output projection without a bias gets one where the values had one.
        attention: From `paredown.structure.find_blocks`.
        factors: From `paredown.methods.attention_rank.value_output`.

    Raises:
        ParedownError: If this attention can't lose rank.
    """
    check(attention, "value-output rank")
    sides = _projected(model, attention)
    rank, dtype = len(factors.value) // attention.key_heads, sides["v"].weight.dtype
    places = torch.arange(rank)

    def heads(number: int) -> Tensor:
        return (torch.arange(number)[:, None] * attention.head_dim + places).flatten()

    sides["v"] = Side(factors.value.to(dtype), heads(attention.key_heads), sides["v"].width, None)
    _replace_(model, attention, sides)
    before = projections.inputs(model, attention.o)
    bias = before.bias
    if factors.bias.any():
        bias = factors.bias.to(dtype) + (0 if bias is None else bias)
    projections.write_inputs_(model, attention.o, Side(factors.output.T.to(dtype), heads(attention.heads), before.width, bias))


def remove_attention_(model: nn.Module, attention: Attention) -> None:
    """Take a whole attention out: it adds nothing to the residual stream; norms behind the sum stay.

    Raises:
        ParedownError: If it can't be removed, or is the last one that a decoder's cache counts tokens by.
    """
    check(attention, "attention")
    blocks = find_blocks(model)
    stack = next(block.stack for block in blocks for other in block.attentions if other.core == attention.core)
    alike = [other.core for block in blocks if block.stack == stack for other in block.attentions if not other.cross]
    if alike == [attention.core] and getattr(model.get_submodule(attention.core), "is_causal", False):
        raise ParedownError(f"{attention.core} is the last self-attention of {stack}, whose cache counts the tokens by it; keep it")
    width = len(projections.inputs(model, attention.o).weight.T)
    model.set_submodule(attention.core, NoAttention(3 if attention.position_bias else 2))
    if not attention.o.startswith(attention.core + "."):
        model.set_submodule(attention.o, Nothing(width))
    renumber_(model)


def remove_mlp_(model: nn.Module, mlp: Mlp) -> None:
    """Take a whole MLP out: it adds nothing to the residual stream; norms behind the sum stay."""
    width = len(projections.inputs(model, mlp.output).weight.T)
    for path in mlp.inputs:
        model.set_submodule(path, Empty())
    model.set_submodule(mlp.output, Nothing(width))


def drop_blocks_(model: nn.Module, dropped: Collection[str]) -> None:
    """Take whole blocks out, norms included; the hidden states go past them.

    Args:
        model: It is changed, and the depth in its config.
        dropped: Paths of the blocks.

    Raises:
        ParedownError: If the model has no such block, or a stack would lose all of them.
    """
    blocks = find_blocks(model)
    if unknown := sorted(set(dropped) - {block.path for block in blocks}):
        raise ParedownError(f"expected paths of blocks, such as {blocks[0].path}, got {', '.join(unknown)}")
    for stack in dict.fromkeys(block.stack for block in blocks):
        kept = [block for block in blocks if block.stack == stack and block.path not in dropped]
        everything = sum(block.stack == stack for block in blocks)
        if not kept:
            raise ParedownError(f"expected at least one block of {stack} to stay, got all {everything} to drop")
        if len(kept) < everything:
            _carry_position_bias_(model, next(block for block in blocks if block.stack == stack), kept[0])
            modules = [model.get_submodule(block.path) for block in kept]
            model.set_submodule(stack, nn.ModuleList(modules))
            _set_depth_(model, stack, [block.index for block in kept])
    renumber_(model)


def renumber_(model: nn.Module) -> None:
    """Give the attentions of each stack consecutive places in the cache, self and cross apart."""
    places: dict[tuple[str, bool], int] = {}
    for block in find_blocks(model):
        for attention in block.attentions:
            core: Any = model.get_submodule(attention.core)
            key = block.stack, attention.cross
            if getattr(core, "layer_idx", None) is not None:
                core.layer_idx = places.get(key, 0)
                places[key] = core.layer_idx + 1


def check(attention: Attention, piece: Piece) -> None:
    """Refuse a removal that the architecture does not allow.

    Raises:
        ParedownError: With the reason.
    """
    if piece in attention.refused:
        raise ParedownError(f"{attention.core} can't lose {piece}: {attention.refused[piece]}; leave it")


def projected(model: nn.Module, attention: Attention, name: str) -> Side:
    """The outputs of the query, key or value projection, ``q``, ``k`` or ``v``."""
    return _projected(model, attention)[name]


def _projected(model: nn.Module, attention: Attention) -> dict[str, Side]:
    if attention.fused:
        fused = projections.outputs(model, attention.q)
        sides = {name: projections.part(fused, i * fused.width // 3, fused.width // 3) for i, name in enumerate("qkv")}
    else:
        sides = {name: projections.outputs(model, getattr(attention, name)) for name in "qkv"}
    if sides["q"].width != attention.heads * attention.head_dim:
        raise ParedownError(f"{attention.core} has lost heads since its blocks were found; find them again with find_blocks(model)")
    return sides


def _replace_(model: nn.Module, attention: Attention, sides: dict[str, Side]) -> None:
    if attention.fused:
        projections.write_outputs_(model, attention.q, projections.joined([sides[name] for name in "qkv"]))
        return
    for name in "qkv":
        projections.write_outputs_(model, getattr(attention, name), sides[name])


def _units(kept: Tensor, unit: int) -> Tensor:
    """Positions of the kept units."""
    return (kept[:, None] * unit + torch.arange(unit)).flatten()


def _with(columns: Side, weight: Tensor | None) -> Side:
    return columns if weight is None else Side(weight.T.to(columns.weight.dtype), columns.index, columns.width, columns.bias)


def _carry_position_bias_(model: nn.Module, first: Block, new: Block) -> None:
    """The first block of T5's stacks holds the position bias of all of them."""
    if first.path == new.path or not first.attentions or not first.attentions[0].position_bias:
        return
    if not new.attentions or new.attentions[0].cross:
        raise ParedownError(
            f"{first.path} holds the position bias of its stack, and {new.path} has no self-attention to take it; keep one of them"
        )
    old: Any = model.get_submodule(first.attentions[0].core)
    core: Any = model.get_submodule(new.attentions[0].core)
    core.relative_attention_bias, core.has_relative_attention_bias = old.relative_attention_bias, True


def _set_depth_(model: nn.Module, stack: str, kept: list[int]) -> None:
    """Say in the configs how many blocks there are."""
    config: Any = model.config
    side = "decoder" if "decoder" in stack.split(".") else "encoder"
    own: Any = getattr(model.get_submodule(stack.rpartition(".")[0]), "config", config)
    if hasattr(config, f"{side}_layers"):  # Whisper
        setattr(config, f"{side}_layers", len(kept))
    elif own is not config:  # T5 gives each stack a config of its own
        setattr(config, "num_decoder_layers" if side == "decoder" else "num_layers", len(kept))
        own.num_layers = len(kept)
    else:
        setattr(config, next(name for name in _DEPTHS if name in config.to_dict()), len(kept))
    if stages := getattr(config, "stage_names", None):  # a vision model may be asked for the outputs of inner blocks
        if config.out_features != stages[-1:]:
            raise ParedownError(
                f"expected a model that gives the outputs of its last block, it gives {config.out_features}; leave its blocks"
            )
        config.stage_names = stages[: len(kept) + 1]
        config._out_features, config._out_indices = config.stage_names[-1:], [len(kept)]
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[index] for index in kept]
