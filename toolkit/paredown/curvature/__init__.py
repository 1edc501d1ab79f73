"""What the loss does around the weights: the matrices, and the questions asked of them."""

from paredown.curvature.activations import ActivationCurvature, activation_curvature
from paredown.curvature.density import exact_density, moments, probe_density, probe_lanczos, quadrature, spectral_density
from paredown.curvature.diagonal import probed_diagonal
from paredown.curvature.double_backward import twice_differentiable
from paredown.curvature.eigenvalues import Eigenpairs, extreme_eigenvalues, ritz_pairs
from paredown.curvature.ekfac import ekfac
from paredown.curvature.fisher import empirical_fisher, fisher
from paredown.curvature.ggn import gauss_newton
from paredown.curvature.ghost_norms import gauss_newton_traces
from paredown.curvature.hessian import Hessian
from paredown.curvature.hessian_traces import TraceSums, hessian_traces
from paredown.curvature.hutchinson import ProbedTrace, hutchinson, refined_trace
from paredown.curvature.input_moment import InputMoment, input_moment
from paredown.curvature.kfac import kfac
from paredown.curvature.kronecker import KroneckerFactored
from paredown.curvature.lanczos import Tridiagonal, lanczos
from paredown.curvature.operators import CurvatureOperator
from paredown.curvature.outer_products import OuterProducts
from paredown.curvature.output_space import HessianBlock, HessianBlocks
from paredown.curvature.per_sample import PerSampleGradients
from paredown.curvature.probes import output_probe, probe_objective
from paredown.curvature.slices import slice_statistic, slices
from paredown.curvature.surface import LossSurface
from paredown.curvature.uncertainty import Moments, probe_error, ratio
from paredown.smoothing import smooth, symlog_grid

__all__ = [
    "ActivationCurvature",
    "CurvatureOperator",
    "Eigenpairs",
    "Hessian",
    "HessianBlock",
    "HessianBlocks",
    "InputMoment",
    "KroneckerFactored",
    "LossSurface",
    "Moments",
    "OuterProducts",
    "PerSampleGradients",
    "ProbedTrace",
    "TraceSums",
    "Tridiagonal",
    "activation_curvature",
    "ekfac",
    "empirical_fisher",
    "exact_density",
    "extreme_eigenvalues",
    "fisher",
    "gauss_newton",
    "gauss_newton_traces",
    "hessian_traces",
    "hutchinson",
    "input_moment",
    "kfac",
    "lanczos",
    "moments",
    "output_probe",
    "probe_density",
    "probe_error",
    "probe_lanczos",
    "probe_objective",
    "probed_diagonal",
    "quadrature",
    "ratio",
    "refined_trace",
    "ritz_pairs",
    "slice_statistic",
    "slices",
    "smooth",
    "spectral_density",
    "symlog_grid",
    "twice_differentiable",
]
