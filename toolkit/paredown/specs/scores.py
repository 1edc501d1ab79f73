"""The names of the scores that other allocators sum, beside our own prediction."""

from __future__ import annotations

from typing import Literal

Score = Literal["fisher", "kfac", "ekfac", "modelopt", "delta_loss", "measured_loss"]
"""What a candidate may be scored with besides: LQ-LoRA's Fisher form, K-FAC's, EK-FAC's, ModelOpt's and AutoRound's scores, and the loss of
the model with this layer alone compressed (`paredown.search.classics` has the formulas)."""

MEASURED: Score = "measured_loss"
"""The one score that is measured, a run of the search split for each candidate; the others are read off the pass that prices."""
