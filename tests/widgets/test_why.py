"""Every branch of the sentence on a layer's sensitivity."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paredown_widgets.why import Evidence, reasons, why

LOUD = Evidence("4 bit", 3.14, outlier_channels=3, channels=1536, outlier_share=0.412)
PLAIN = Evidence(
    "4 bit",
    1.0,
    outlier_channels=0,
    channels=384,
    trace=1.0,
    trace_words="4.2 ± 0.3",
    top=1.0,
    top_words="0.5",
    passed_on=1.0,
    reach=5,
    kurtosis=0.1,
)


def text(known: Evidence) -> str:
    found = why(known)
    return f"{found.lead} {found.text}".replace("\N{NO-BREAK SPACE}", " ")


def test_nothing_known_is_a_dash() -> None:
    assert why(Evidence()) == why(Evidence("4 bit"))
    assert text(Evidence()) == " –"


def test_outlier_channels_come_first() -> None:
    assert text(LOUD) == (
        "Why it is sensitive: 3 of 1,536 input channels carry 41 % of the input energy. Its loss at 4 bit is 3.1 times the median layer's."
    )
    assert "1 of 1,536 input channels carries" in text(replace(LOUD, outlier_channels=1))


@pytest.mark.parametrize(("count", "share"), [(0, 0.0), (2, 0.05), (None, 0.0)])
def test_few_or_quiet_outlier_channels_are_no_reason(count: int | None, share: float) -> None:
    assert reasons(replace(LOUD, outlier_channels=count, outlier_share=share)) == []


def test_the_curvature_that_stands_out_more_is_named() -> None:
    curved = replace(PLAIN, loss=2.0, top=2.5, top_words="5.61", trace=2.2)
    assert "λmax (5.61) is 2.5 times the median layer's" in text(curved)
    assert "The trace (4.2 ± 0.3) is 4.0 times the median layer's. Its" in text(replace(curved, trace=4.0))
    assert reasons(replace(curved, top=1.9, trace=None)) == []


def test_what_an_error_costs_says_whether_it_was_measured() -> None:
    costly = replace(PLAIN, loss=2.0, passed_on=4.0)
    assert "An error of its output costs 4.0 times as much as in the median layer (predicted)." in text(costly)
    assert "(measured alone)" in text(replace(costly, passed_on_measured=True))


def test_a_wide_range_or_else_heavy_tails() -> None:
    wide = replace(PLAIN, loss=2.0, reach=24.4, kurtosis=8.0)
    assert reasons(wide) == ["its largest weight is 24 standard deviations out, which widens the steps of its grid"]
    assert reasons(replace(wide, reach=9.0)) == ["its weights have heavy tails (excess kurtosis 8.0)"]
    assert reasons(replace(wide, reach=None, kurtosis=None)) == []


def test_at_most_three_reasons_are_joined() -> None:
    everything = replace(LOUD, top=3.0, top_words="5", passed_on=3.0, reach=30.0)
    assert len(reasons(everything)) == 3
    assert ", λmax (5) is 3.0 times the median layer's, and an error" in text(everything)


def test_a_sensitive_layer_without_a_reason_says_so() -> None:
    assert text(replace(PLAIN, loss=1.5)).startswith(
        "Why it is sensitive: None of its inputs, weights and curvature stands out. Its loss at 4 bit is 1.5"
    )


def test_a_layer_like_the_median() -> None:
    assert text(PLAIN) == "As sensitive as most: its loss at 4 bit is 1.0 times the median layer's."
    assert text(replace(LOUD, loss=1.1)).endswith(
        "1.1 times the median layer's, although 3 of 1,536 input channels carry 41 % of the input energy."
    )


def test_a_layer_that_is_not_sensitive_says_what_speaks_for_it() -> None:
    calm = replace(PLAIN, loss=0.2, top=0.3, passed_on=0.4)
    assert text(calm) == (
        "Not sensitive: its loss at 4 bit is 0.20 times the median layer's; no outlier channels, λmax is 0.30 times the median layer's,"
        " an error of its output costs 0.40 times as much as there."
    )
    assert "the trace is 0.50 times the median layer's" in text(replace(calm, top=None, trace=0.5))
    assert text(Evidence("4 bit", 0.2)) == "Not sensitive: its loss at 4 bit is 0.20 times the median layer's."
    assert text(replace(LOUD, loss=0.5)).startswith("Not sensitive: its loss at 4 bit is 0.50 times the median layer's, although 3 of")


def test_before_the_prices_only_what_stands_out_is_said() -> None:
    assert text(replace(LOUD, loss=None)).startswith(
        "What stands out: 3 of 1,536 input channels carry 41 % of the input energy. What that costs is not known"
    )
    assert text(replace(PLAIN, loss=None)) == " –"


@given(
    st.builds(
        Evidence,
        at=st.just("4 bit"),
        loss=st.none() | st.floats(0, 1e6),
        outlier_channels=st.none() | st.integers(0, 99),
        channels=st.integers(100, 9999),
        outlier_share=st.floats(0, 1),
        trace=st.none() | st.floats(-10, 1e6),
        trace_words=st.just("1"),
        top=st.none() | st.floats(0, 1e6),
        top_words=st.just("2"),
        passed_on=st.none() | st.floats(0, 1e6),
        reach=st.none() | st.floats(0, 1e3),
        kurtosis=st.none() | st.floats(-2, 1e3),
    )
)
def test_it_is_always_one_lead_and_whole_sentences(known: Evidence) -> None:
    found = why(known)
    assert found.text
    assert (found.text == "–") == (not found.lead)
    assert not found.lead or (found.text.endswith(".") and found.lead.endswith(":"))
    assert "nan" not in found.text
    assert "None " not in found.text or found.text.startswith("None of its inputs")
