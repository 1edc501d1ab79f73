"""Small packed weights under any scheme, and how large the numbers are that a product with them adds up."""

from __future__ import annotations

from dataclasses import replace

import torch

from paredown import sizes
from paredown.kernels import pack, unpack
from paredown.methods import compress, dequantize
from paredown.methods.factors import dense_factor
from paredown.specs import LayerRef, Scheme
from seen_layers import seen


def packed(text, shape=(48, 64), seed=0):
    """A weight of normal numbers under a scheme, or what of it fits the shape."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    scheme, _ = sizes.fit(Scheme.parse(text) if isinstance(text, str) else text, LayerRef("fc", "linear", "fc1", "", shape, "float32"))
    return pack(compress(weight, scheme, seen(*shape, seed=seed)))


def magnitudes(packed):
    """|W|, or of a correction |W| + |B| |A|, float64 [out, in]: rounding errors are a share of the product with it."""
    made = unpack(packed)
    dense = torch.zeros(packed.shape, dtype=torch.float64)
    if made.numbers is not None:
        dense += dequantize(replace(made, factors=None)).double().abs()
    if made.factors is not None:
        dense += dense_factor(made.factors.left).double().abs().T @ dense_factor(made.factors.right).double().abs()
    return dense
