"""Structured pruning: heads, channels, dimensions, ranks and blocks really taken out of a model.

Example::

    from paredown import models, tasks
    from paredown.structure import Fractions, shrink

    loaded = models.load("demo:sentiment")
    task = tasks.load("demo:sentiment", loaded)
    small = shrink(loaded, task, drop_blocks=1, fractions=Fractions(mlp=0.75))
    print(small.before.parameters, small.after.parameters)
    print(small.after.metric.value, small.after.kl, small.after.kl_sd)  # held-out
    small.save("small")
    again = models.load("small")  # a study of its own: Study("studies/small", StudyConfig(model="small", ...))
"""

from paredown.structure.anatomy import Attention, Block, Mlp, find_blocks
from paredown.structure.fitting import (
    Fractions,
    fit_block_,
    fit_channels_,
    fit_heads_,
    fit_query_keys_,
    fit_value_output_,
)
from paredown.structure.greedy import Step, greedy
from paredown.structure.inputs import InputMoments, influences, input_moments
from paredown.structure.measuring import Figures
from paredown.structure.modegpt import allocation, drop_least_influential_, modegpt_
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
from paredown.structure.shrinking import Shrunk, shrink

__all__ = [
    "Attention",
    "Block",
    "Figures",
    "Fractions",
    "InputMoments",
    "Mlp",
    "Shrunk",
    "Step",
    "allocation",
    "drop_blocks_",
    "drop_least_influential_",
    "factor_value_output_",
    "find_blocks",
    "fit_block_",
    "fit_channels_",
    "fit_heads_",
    "fit_query_keys_",
    "fit_value_output_",
    "greedy",
    "influences",
    "input_moments",
    "keep_channels_",
    "keep_heads_",
    "keep_query_key_dimensions_",
    "modegpt_",
    "remove_attention_",
    "remove_mlp_",
    "renumber_",
    "save",
    "shrink",
]
