import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown.curvature.trust import GRADIENT, judge
from paredown.specs import QuadraticStep, SpectralDensity

CALM = {"gradient_norm": 1.0, "gradient_norm_sd": 1.0, "negative_share": 0.5}


def steps(*ratios, error=0.02):
    """Measured over predicted at 8, 4, 3 and 2 bits; what is predicted grows by four a bit."""
    return [
        QuadraticStep(f"int{bits}g64sym", p := 4.0**-bits, error * p, ratio * p, error * p, error * p)
        for bits, ratio in zip((8, 4, 3, 2), ratios, strict=False)
    ]


@pytest.mark.parametrize(
    ("ratios", "verdict", "reason"),
    [
        ((1, 1, 1, 1), "yes", "predictions hold down to 2 bits"),
        ((1, 1, 1.2, 2.4), "yes", "predictions hold down to 3 bits; at 2 bits the loss rose 2.4 times as much as predicted"),
        ((1, 0.8, 3, 9), "with care", "predictions hold down to 4 bits; at 3 bits the loss rose 3 times as much as predicted"),
        ((1, 0.5, 1, 1), "no", "predictions hold down to 8 bits; at 4 bits the loss rose 0.5 times as much as predicted"),
        ((5, 5, 5, 5), "no", "predictions fail: at 8 bits the loss rose 5 times as much as predicted"),
        ((1, 1, -1, 1), "with care", "predictions hold down to 4 bits; at 3 bits the loss did not rise, where a rise was predicted"),
        ((1, 1), "with care", "predictions hold down to 4 bits"),
        ((), "unknown", "nothing was measured yet"),
    ],
)
def test_verdicts_by_how_far_the_predictions_hold(ratios, verdict, reason):
    assert judge(steps(*ratios), **CALM) == (verdict, reason)
    assert judge(steps(*ratios)[::-1], **CALM) == (verdict, reason)


def test_a_gradient_beyond_chance_and_negative_curvature_ask_for_care():
    """Q-BERT's SQuAD: the predictions may hold along rounding errors, but the weights are at no minimum."""
    verdict, reason = judge(steps(1, 1, 1, 1), gradient_norm=4.1, gradient_norm_sd=1.0, negative_share=0.71)
    assert verdict == "with care"
    assert reason == (
        "predictions hold down to 2 bits; the gradient is 4.1 times what chance gives and 71 % of the curvature is negative,"
        " so the weights are not at a minimum of the loss"
    )
    assert judge(steps(9, 9, 9, 9), gradient_norm=4.1, gradient_norm_sd=1.0, negative_share=None)[0] == "no"
    assert judge(steps(1, 1, 1, 1), gradient_norm=0.99 * GRADIENT, gradient_norm_sd=1.0, negative_share=None)[0] == "yes"


def test_errors_as_large_as_the_figures_leave_it_open():
    assert judge(steps(1, 2, 2, 2, error=1.1), **CALM) == ("unknown", "too few samples to tell predicted from measured")
    noisy = steps(2, error=1.1) + steps(1, 1, 1, 1)[1:]  # at 8 bits nothing can be told, and the others hold
    assert judge(noisy, **CALM)[0] == "yes"


def test_beyond_the_tolerance_and_within_two_standard_errors_is_neither_holding_nor_failing():
    assert judge(steps(1, 1.6, 1.6, 1.6, error=0.35), **CALM) == (
        "with care",
        "predictions hold down to 8 bits; for fewer, the samples don't tell",
    )
    assert judge(steps(1, 1.6, 1.6, 1.6, error=0.05), **CALM)[0] == "no"


def test_a_layer_that_nothing_depends_on_is_predicted_exactly():
    still = [QuadraticStep(f"int{bits}", 0.0, 0.0, 1e-16, 0.0, 0.0) for bits in (8, 4, 3, 2)]
    assert judge(still, gradient_norm=0.0, gradient_norm_sd=0.0, negative_share=0.0) == ("yes", "predictions hold down to 2 bits")


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=4), st.floats(0, 10), st.floats(0, 1))
def test_a_better_conditioned_layer_is_never_trusted_less(ratios, gradient, share):
    order = ("no", "with care", "yes")
    calm, _ = judge(steps(*ratios), gradient_norm=0.0, gradient_norm_sd=1.0, negative_share=0.0)
    wild, _ = judge(steps(*ratios), gradient_norm=gradient, gradient_norm_sd=1.0, negative_share=share)
    assert order.index(wild) <= order.index(calm)


def test_the_negative_share_counts_magnitudes_over_all_probes():
    def share(nodes, weights):
        return SpectralDensity("l", "hessian", nodes, weights, 2, 1, 0).negative_share

    assert share(((-1.0, 3.0),), ((0.5, 0.5),)) == 0.25
    assert share(((-1.0, 3.0), (0.0, 4.0)), ((0.5, 0.5), (0.5, 0.5))) == 0.125
    assert share(((0.0,),), ((1.0,),)) == 0
