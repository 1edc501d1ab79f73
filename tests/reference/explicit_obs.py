"""Optimal brain surgeon, one weight at a time with the explicit inverse (float64)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def obs(weight: np.ndarray, hessian: np.ndarray, order: list[int], decide: Callable[[int, int, float], float]) -> np.ndarray:
    """Fix each weight of each row in the order given, moving those that are left to their optimum each time.

    `decide(row, input, value)` says what a weight becomes, from its present value.
    """
    result = weight.astype(np.float64).copy()
    for row in range(len(result)):
        left = list(order)
        while left:
            inverse = np.linalg.inv(hessian[np.ix_(left, left)])
            first = left[0]
            value = decide(row, first, float(result[row, first]))
            result[row, left] -= (result[row, first] - value) / inverse[0, 0] * inverse[:, 0]
            result[row, first] = value
            left = left[1:]
    return result


def cost(change: np.ndarray, hessian: np.ndarray) -> float:
    return float(np.trace(change @ hessian @ change.T))


def best_of_mask(weight: np.ndarray, mask: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """The weight of a mask with the least cost, row by row."""
    best = np.zeros(weight.shape)
    for row, kept in enumerate(mask):
        best[row, kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], hessian[kept] @ weight[row].astype(np.float64))
    return best
