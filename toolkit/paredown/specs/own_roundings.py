"""Names of roundings that are not ours: `paredown.methods.own.rounding` gives them, schemes are checked against them."""

from __future__ import annotations

OWN: dict[str, bool] = {}
"""By name, whether it needs what calibration sees of a layer. Of this process."""
