"""Where the blocks of a transformer are, and in each its attentions and its MLP.

Only model families that the tests shrink and compare are known: in another one, a scale, a norm or a shared tensor between the pieces
could make the smaller model silently another one.
"""

from __future__ import annotations

import inspect
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from paredown.errors import ParedownError
from paredown.layers import find_layers
from paredown.structure.projections import input_width, output_width

FAMILIES = ("bert", "roberta", "distilbert", "gpt2", "llama", "qwen2", "qwen3", "mistral", "vit", "dinov2", "whisper", "wav2vec2", "t5")
"""Values of ``config.model_type`` whose blocks can be shrunk."""

Piece = Literal["heads", "query-key dimensions", "value-output rank", "attention"]
_HEAD_DIMENSION = ("head_dim", "attention_head_size", "key_value_proj_dim")
_POST_NORM = ("bert", "roberta", "distilbert")


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention of a block.

    Attributes:
        core: Path of the module that mixes the tokens; `o` may lie outside of it.
        q: Path of the query projection; one and the same as `k` and `v` where they are fused.
        k: Path of the key projection.
        v: Path of the value projection.
        o: Path of the output projection.
        heads: Query heads.
        key_heads: Key-value heads; each is shared by as many consecutive query heads.
        head_dim: Dimensions of a head.
        rotary: Whether queries and keys are rotated, dimension i with i + head_dim / 2.
        cross: Whether keys and values come from another stack.
        position_bias: Whether a bias for every head, shared by all blocks, is added to the scores: heads then keep their places.
        refused: What can't be removed, and why.
    """

    core: str
    q: str
    k: str
    v: str
    o: str
    heads: int
    key_heads: int
    head_dim: int
    rotary: bool
    cross: bool
    position_bias: bool
    refused: Mapping[Piece, str] = field(default_factory=dict)

    @property
    def fused(self) -> bool:
        """Whether queries, keys and values are one projection."""
        return self.q == self.v


@dataclass(frozen=True, slots=True)
class Mlp:
    """The MLP of a block.

    Attributes:
        inputs: Paths of the projections to the channels: one, or gate and up.
        output: Path of the projection from them.
        channels: How many there are.
    """

    inputs: tuple[str, ...]
    output: str
    channels: int


@dataclass(frozen=True, slots=True)
class Block:
    """One block.

    Attributes:
        path: Its module path.
        stack: Path of the list that it is in.
        index: Position in that list.
        attentions: Self-attention, then cross-attention, as far as they are still there.
        mlp: None once it is removed.
        post_norm: Whether norms stand behind each sum and not before each piece: they stay when the piece goes, and go with the block.
    """

    path: str
    stack: str
    index: int
    attentions: tuple[Attention, ...]
    mlp: Mlp | None
    post_norm: bool


def find_blocks(model: nn.Module) -> tuple[Block, ...]:
    """The blocks of a transformers model, in model order.

    Raises:
        ParedownError: If the model is of no known family, or a piece of a block isn't where it should be.
    """
    config: Any = getattr(model, "config", None)
    family = getattr(config, "model_type", type(model).__name__)
    if family not in FAMILIES:
        raise ParedownError(
            f"expected a model whose blocks are known ({', '.join(FAMILIES)}), got {family}; its weights can still be pruned in a plan"
        )
    roles: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for layer in find_layers(model):
        if layer.block and layer.role != "other":
            if layer.role in roles[layer.block]:
                raise ParedownError(
                    f"{layer.block} has two layers in the role {layer.role}, {roles[layer.block][layer.role]} and {layer.name}"
                )
            roles[layer.block][layer.role] = layer.name.removesuffix(".kept")
    stacks = Counter(path.rpartition(".")[0] for path in roles)
    blocks: list[Block] = []
    for stack in stacks:
        for name, _ in model.get_submodule(stack).named_children():
            path = f"{stack}.{name}"
            blocks.append(_block(model, path, stack, int(name), roles.get(path, {}), config))
    return tuple(blocks)


def _block(model: nn.Module, path: str, stack: str, index: int, roles: Mapping[str, str], config: Any) -> Block:
    attentions = [_attention(model, roles, prefix, config) for prefix in ("", "x")]
    inputs = tuple(roles[role] for role in ("fc1", "gate", "up") if role in roles)
    output = roles.get("fc2") or roles.get("down")
    if bool(inputs) != bool(output) or len(inputs) != (2 if "down" in roles else len(inputs)):
        raise ParedownError(f"expected the projections of an MLP in {path}, found only {', '.join((*inputs, output or ''))}")
    mlp = Mlp(inputs, output, input_width(model.get_submodule(output))) if output else None
    stable = getattr(config, "do_stable_layer_norm", True)
    post_norm = config.model_type in _POST_NORM or not stable
    return Block(path, stack, index, tuple(found for found in attentions if found), mlp, post_norm)


def _attention(model: nn.Module, roles: Mapping[str, str], prefix: str, config: Any) -> Attention | None:
    found = {role: roles.get(prefix + role) for role in ("q", "k", "v", "o")}
    if not prefix and "qkv" in roles:
        found |= dict.fromkeys(("q", "k", "v"), roles["qkv"])
    q, k, v, o = (found[role] for role in ("q", "k", "v", "o"))
    if not (q or k or v or o):
        return None
    if not (q and k and v and o):
        raise ParedownError(f"expected query, key, value and output projections beside {q or k or v or o}, found {found}")
    core = q.rpartition(".")[0]
    module = model.get_submodule(core)
    head_dim = next((value for name in _HEAD_DIMENSION if isinstance(value := getattr(module, name, None), int)), None)
    outputs, inputs = output_width(model.get_submodule(q)), input_width(model.get_submodule(o))
    if head_dim is None or inputs % head_dim or (q == v and outputs != 3 * inputs):
        raise ParedownError(f"expected {core} with whole heads, got {inputs} inputs of {o} and heads of {head_dim}")
    rotary = "position_embeddings" in inspect.signature(type(module).forward).parameters
    key_heads = inputs // head_dim if q == v else output_width(model.get_submodule(k)) // head_dim
    bias = hasattr(module, "has_relative_attention_bias")
    return Attention(
        core,
        q,
        k,
        v,
        o,
        inputs // head_dim,
        key_heads,
        head_dim,
        rotary,
        bool(prefix),
        bias,
        _refused(module, head_dim, config, bool(prefix)),
    )


def _refused(module: nn.Module, head_dim: int, config: Any, cross: bool) -> dict[Piece, str]:
    reasons: dict[Piece, str] = {}
    norms = [child for name, child in module.named_children() if name in ("q_norm", "k_norm")]
    if norms:
        reasons["query-key dimensions"] = "queries and keys are normalised over all dimensions of a head"
    if any(isinstance(norm.weight, Tensor) and norm.weight.numel() != head_dim for norm in norms):
        reasons["heads"] = "queries and keys are normalised over all heads together"
    if getattr(module, "has_relative_attention_bias", False) and not cross:
        reasons["attention"] = "it holds the position bias that all blocks add"
    if len(set(getattr(config, "layer_types", None) or ())) > 1:
        reasons["attention"] = "sliding and full attention share one cache, whose places would no longer fit"
    return reasons
