"""Why a layer is sensitive, in one sentence made from the figures. A pure function of what is known."""

from __future__ import annotations

from dataclasses import dataclass

from paredown_widgets import numbers

SENSITIVE = 1.5
"""Times the median layer's loss from which a layer is called sensitive; below the inverse it is called not sensitive."""
STANDS_OUT = 2.0
"""Times the median layer's from which curvature, or what an error costs, is given as a reason."""
LOUD = 0.1
"""Share of the input energy from which outlier channels are a reason."""
WIDE = 10.0
"""Standard deviations that the largest weight is away, from which the range is a reason: a normal distribution of a million weights reaches five."""
HEAVY = 3.0
"""Excess kurtosis from which the tails are a reason; a Laplace distribution has 3."""
_MOST = 3  # reasons


@dataclass(frozen=True)
class Evidence:
    """What is known of a layer beside the median layer of its model; None where nothing is.

    Attributes:
        at: The scheme at which layers are compared, in words, such as ``4 bit``.
        loss: Predicted loss increase over the median layer's.
        outlier_channels: Outlier channels of its inputs.
        channels: Its inputs.
        outlier_share: Share of the energy that the outlier channels carry, 0 to 1.
        trace: Trace of the curvature over the median layer's.
        trace_words: The trace itself.
        top: Largest eigenvalue over the median layer's.
        top_words: The eigenvalue itself.
        matrix: Whose trace and eigenvalue they are, such as ``Gauss–Newton``.
        passed_on: Loss increase for each unit of output error over the median layer's.
        passed_on_measured: Whether that loss was measured with the layer alone compressed; otherwise it is predicted.
        reach: Largest weight in standard deviations.
        kurtosis: Excess kurtosis of the weights.
    """

    at: str = ""
    loss: float | None = None
    outlier_channels: int | None = None
    channels: int = 0
    outlier_share: float = 0.0
    trace: float | None = None
    trace_words: str = ""
    top: float | None = None
    top_words: str = ""
    matrix: str = ""
    passed_on: float | None = None
    passed_on_measured: bool = False
    reach: float | None = None
    kurtosis: float | None = None


@dataclass(frozen=True)
class Why:
    """The sentence: what it begins with, which stands out, and the rest."""

    lead: str
    text: str


def why(known: Evidence) -> Why:
    """The sentence; "–" where nothing is known.

    Example:
        >>> found = why(Evidence("4 bit", 3.1, outlier_channels=3, channels=1536, outlier_share=0.41))
        >>> found.lead, found.text.partition(" carry")[0]
        ('Why it is sensitive:', '3 of 1,536 input channels')
    """
    found = reasons(known)
    if known.loss is None:
        if found:
            return Why("What stands out:", f"{_capital(_joined(found))}. What that costs is not known before the layers are priced.")
        return Why("", numbers.NONE)
    costs = f"its loss at {known.at} is {_times(known.loss)} the median layer's"
    if known.loss >= SENSITIVE:
        rest = _capital(_joined(found)) if found else "None of its inputs, weights and curvature stands out"
        return Why("Why it is sensitive:", f"{rest}. {_capital(costs)}.")
    though = f", although {_joined(found)}" if found else ""
    if known.loss > 1 / SENSITIVE:
        return Why("As sensitive as most:", f"{costs}{though}.")
    calm = [] if found else _calm(known)
    return Why("Not sensitive:", f"{costs}{though}{'; ' * bool(calm)}{', '.join(calm)}.")


def reasons(known: Evidence) -> list[str]:
    """What stands out, the likeliest cause first, at most three."""
    found: list[str] = []
    if known.outlier_channels and known.outlier_share >= LOUD:
        carry = "carry" if known.outlier_channels > 1 else "carries"
        found.append(
            f"{known.outlier_channels:,} of {known.channels:,} input channels {carry} {_percent(known.outlier_share)} of the input energy"
        )
    of = f"{known.matrix} " if known.matrix else ""
    curved = [(known.top or 0.0, f"λmax ({of}{known.top_words})"), (known.trace or 0.0, f"the trace ({of}{known.trace_words})")]
    ratio, name = max(curved, key=lambda pair: pair[0])
    if ratio >= STANDS_OUT:
        found.append(f"{name} is {_times(ratio)} the median layer's")
    if known.passed_on is not None and known.passed_on >= STANDS_OUT:
        how = "measured alone" if known.passed_on_measured else "predicted"
        found.append(f"an error of its output costs {_times(known.passed_on)} as much as in the median layer ({how})")
    if known.reach is not None and known.reach >= WIDE:
        found.append(f"its largest weight is {known.reach:.0f} standard deviations out, which widens the steps of its grid")
    elif known.kurtosis is not None and known.kurtosis >= HEAVY:
        found.append(f"its weights have heavy tails (excess kurtosis {numbers.significant(known.kurtosis, 2)})")
    return found[:_MOST]


def _calm(known: Evidence) -> list[str]:
    """What speaks for a layer that loses little."""
    calm = ["no outlier channels"] if known.outlier_channels == 0 else []
    if known.top is not None and known.top <= 1:
        calm.append(f"λmax is {_times(known.top)} the median layer's")
    elif known.trace is not None and known.trace <= 1:
        calm.append(f"the trace is {_times(known.trace)} the median layer's")
    if known.passed_on is not None and known.passed_on <= 1 / STANDS_OUT:
        calm.append(f"an error of its output costs {_times(known.passed_on)} as much as there")
    return calm


def _times(ratio: float) -> str:
    return f"{numbers.significant(ratio, 2)} times"


def _capital(text: str) -> str:
    """Sentence case; λmax stays as it is."""
    return text if text.startswith("λ") else numbers.capital(text)


def _percent(share: float) -> str:
    return f"{numbers.significant(100 * share, 2)}{numbers.SPACE}%"


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])}, and {words[-1]}"
