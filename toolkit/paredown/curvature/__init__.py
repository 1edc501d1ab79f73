"""What the loss does around the weights: the matrices, and the questions asked of them."""

from paredown.curvature.ggn import PerSampleGradients
from paredown.curvature.probes import output_probe, probe_objective

__all__ = ["PerSampleGradients", "output_probe", "probe_objective"]
