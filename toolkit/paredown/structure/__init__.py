"""Structured pruning: heads, channels, dimensions, ranks and blocks really taken out of a model."""

from paredown.structure.anatomy import Attention, Block, Mlp, find_blocks
from paredown.structure.removal import (
    drop_blocks_,
    factor_value_output_,
    keep_channels_,
    keep_heads_,
    keep_query_key_dimensions_,
    remove_attention_,
    remove_mlp_,
    renumber_,
)
from paredown.structure.saving import save

__all__ = [
    "Attention",
    "Block",
    "Mlp",
    "drop_blocks_",
    "factor_value_output_",
    "find_blocks",
    "keep_channels_",
    "keep_heads_",
    "keep_query_key_dimensions_",
    "remove_attention_",
    "remove_mlp_",
    "renumber_",
    "save",
]
