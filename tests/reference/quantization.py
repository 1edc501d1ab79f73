"""Quantization and packing as slow, obvious loops over Python numbers (float64)."""

from __future__ import annotations

import numpy as np


def quantize_group(weights: list[float], bits: int, symmetric: bool) -> tuple[list[int], float, int]:
    """Codes, scale and zero point of one group, of ordinary size (no underflow, not all zero)."""
    steps = 2**bits - 1
    if symmetric:
        zero = 2 ** (bits - 1)
        scale = float(np.float16(max(abs(w) for w in weights) / (steps / 2)))
    else:
        low, high = min(0.0, *weights), max(0.0, *weights)
        scale = float(np.float16((high - low) / steps))
        zero = min(max(round(-low / scale), 0), steps)
    codes = [min(max(round(w / scale) + zero, 0), steps) for w in weights]
    return codes, scale, zero


def squared_error(weights: list[float], codes: list[int], scale: float, zero: int) -> float:
    return sum((w - scale * (code - zero)) ** 2 for w, code in zip(weights, codes, strict=True))


def pack_row(codes: list[int], bits: int) -> list[int]:
    """One row as a single long number, cut into signed words of 32 bits."""
    number = sum(code << (bits * place) for place, code in enumerate(codes))
    count = -(-len(codes) * bits // 32)
    words = [(number >> (32 * place)) & 0xFFFFFFFF for place in range(count)]
    return [word - (1 << 32) if word >> 31 else word for word in words]


def hqq_group(
    weights: list[float], scale: float, zero: int, bits: int, symmetric: bool, steps: int, growth: float = 1.01
) -> tuple[float, int]:
    """Scale and zero point by half-quadratic splitting from the given ones, p = 0.7, of a group of ordinary size."""
    top, beta, least, best = 2**bits - 1, 1.0, float("inf"), (scale, zero)
    for _ in range(steps + 1):
        codes = [min(max(round(w / scale) + zero, 0), top) for w in weights]
        error = squared_error(weights, codes, scale, zero)
        if error >= least:
            break
        least, best = error, (scale, zero)
        target = []
        for w, code in zip(weights, codes, strict=True):
            rest = w / scale - (code - zero)
            outlier = max(0.0, abs(rest) - abs(rest) ** -0.3 / beta) if rest else 0.0
            target.append(w / scale - (outlier if rest > 0 else -outlier))
        beta *= growth
        if not symmetric:
            slope, intercept = np.polyfit(codes, target, 1)
            if slope > 0.5:
                zero = min(max(round(-intercept / slope), 0), top)
        values = np.array(codes) - zero
        if values.any() and (factor := float(values @ target / (values @ values))) > 0:
            scale = float(np.float16(scale * factor))
    return best
