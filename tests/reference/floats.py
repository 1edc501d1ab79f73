"""Small floats and codebooks as slow, obvious loops over Python numbers (float64)."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np


def nearest_index(value: float, table: list[float]) -> int:
    return min(range(len(table)), key=lambda index: abs(value - table[index]))


def e2m1(value: float) -> float:
    """Rounded by another library's float4, which has the same ties and saturates too."""
    return float(np.float32(min(max(value, -6.0), 6.0)).astype(ml_dtypes.float4_e2m1fn))


def e4m3(value: float) -> float:
    return float(np.float32(value).astype(ml_dtypes.float8_e4m3fn))


def mxfp4_block(values: list[float]) -> list[float]:
    largest = max(map(abs, values))
    if largest == 0:
        return [0.0] * len(values)
    scale = 2.0 ** (math.floor(math.log2(largest)) - 2)
    return [e2m1(value / scale) * scale for value in values]


def nvfp4_tensor(rows: list[list[float]]) -> list[list[float]]:
    """Rows of whole blocks, in float32 where the format is."""
    tensor_scale = np.float32(max(abs(value) for row in rows for value in row)) / np.float32(6 * 448)
    result = []
    for row in rows:
        back = []
        for start in range(0, len(row), 16):
            block = np.float32(row[start : start + 16])
            scale = np.float32(max(e4m3(abs(block).max() / np.float32(6) / tensor_scale), 2.0**-9)) * tensor_scale
            back += [float(np.float32(e2m1(float(value / scale))) * scale) for value in block]
        result.append(back)
    return result


def normal_float_tensor(weight: np.ndarray, table: list[float], group: int, scale_bits: int, scale_group: int) -> np.ndarray:
    """LQ-LoRA's two levels, for a float32 scale of the scales."""
    groups = weight.astype(np.float64).reshape(-1, group)
    scales = np.abs(groups).max(axis=1)
    offset, steps = scales.min(), 2**scale_bits - 1
    for start in range(0, len(scales), scale_group):
        part = slice(start, start + scale_group)
        largest = (scales[part] - offset).max() or 1.0
        scales[part] = np.round((scales[part] - offset) / largest * steps) / steps * largest + offset
    rows = [[table[nearest_index(value / scale, table)] * scale for value in row] for row, scale in zip(groups, scales, strict=True)]
    return np.array(rows).reshape(weight.shape)
