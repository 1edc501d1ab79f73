"""How numbers are written, in one place: three significant digits for sizes; a value and its error share their decimals.

A true minus, no-break spaces before units, MB = 10⁶ bytes, and "–" where there is no value yet. ± is one standard error.
"""

from __future__ import annotations

import math

from paredown.specs import Metric

NONE = "–"
"""What stands where there is no value yet."""
MINUS = "−"
SPACE = "\N{NO-BREAK SPACE}"
RULE = "± and bars: one standard error"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_Z95 = 1.959963984540054  # half the width of a 95 % interval of the normal distribution, in standard errors
_SHARES = ("accuracy", "word error rate", "wer", "error rate", "f1")


def fixed(value: float | None, decimals: int) -> str:
    """A number with that many decimals, and a true minus.

    Example:
        >>> fixed(-2, 1), fixed(-0.001, 1), fixed(None, 1)
        ('−2.0', '0.0', '–')
    """
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def significant(value: float | None, digits: int = 3) -> str:
    """A number to that many significant digits, without an exponent.

    Example:
        >>> significant(90.94), significant(9.618), significant(0.04378), significant(99.96), significant(1234.5)
        ('90.9', '9.62', '0.0438', '100', '1234')
    """
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if round(abs(value), digits - 1 - magnitude) >= 10 ** (magnitude + 1):
        magnitude += 1  # 99.96 is 100, not 100.0
    return fixed(value, max(0, digits - 1 - magnitude))


def size(value: float | None) -> str:
    r"""Bytes in words.

    Example:
        >>> size(12_345_678), size(1_250_000_000), size(94_000), size(None)
        ('12.3\xa0MB', '1.25\xa0GB', '94.0\xa0kB', '–')
    """
    if value is None:
        return NONE
    for limit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= limit * 0.9995:
            return f"{significant(value / limit)}{SPACE}{name}"
    return f"{value:.0f}{SPACE}bytes"


def _decimals(error: float) -> int:
    """Decimals that leave an error two digits below 3.55 of its decade and one above, the particle physicists' rule."""
    magnitude = math.floor(math.log10(error))
    return max(0, (1 if error / 10**magnitude < 3.55 else 0) - magnitude)


def with_error(value: float | None, error: float | None, unit: str = "") -> str:
    r"""A value and its standard error with the same decimals.

    Example:
        >>> with_error(0.04412, 0.00371), with_error(85.81, 1.563, "%"), with_error(0.5, None), with_error(0.012, 0)
        ('0.044 ± 0.004', '85.8\xa0% ± 1.6', '0.500', '0.0120')
    """
    tail = f"{SPACE}{unit}" if unit else ""
    if value is None or not math.isfinite(value):
        return NONE
    if error is None or not math.isfinite(error) or error <= 0:
        return significant(value) + tail
    decimals = _decimals(error)
    if unit == "%" and error >= 0.1:
        decimals = min(decimals, 1)  # the second decimal of a share of some hundred samples says nothing
    return f"{fixed(value, decimals)}{tail} ± {fixed(error, decimals)}"


def quantity(value: float | None, error: float | None = None) -> str:
    """A loss or a curvature with its standard error; a small or a huge one by its power of ten.

    Example:
        >>> quantity(0.04412, 0.00371), quantity(2.83e-5, 7.1e-6), quantity(0.0), quantity(None)
        ('0.044 ± 0.004', '(2.8 ± 0.7) · 10⁻⁵', '0', '–')
        >>> quantity(1e-5, 0.02), quantity(-482_000.0)
        ('0.000 ± 0.020', '−4.82 · 10⁵')
    """
    largest = max(abs(value or 0.0), error or 0.0)
    if value is None or largest == 0 or 1e-3 <= largest < 1e5 or not math.isfinite(largest):
        return with_error(value, error)
    power = math.floor(math.log10(largest))
    mantissa = with_error(value / 10**power, None if error is None else error / 10**power)
    times = f" · 10{str(power).translate(RAISED)}"
    return f"({mantissa}){times}" if "±" in mantissa else mantissa + times


def signed(value: float | None, error: float | None = None) -> str:
    """A change: with its sign.

    Example:
        >>> signed(-0.0031, 0.0008), signed(0.25), signed(None)
        ('−0.0031 ± 0.0008', '+0.250', '–')
    """
    return NONE if value is None else ("+" if value > 0 else "") + quantity(value, error)


def error(deviation: float) -> str:
    """A standard error on its own, with one or two digits.

    Example:
        >>> error(0.424), error(0.0245), error(12.3), error(2.3e-6)
        ('0.4', '0.025', '12', '2.3 · 10⁻⁶')
    """
    if 0 < deviation < 1e-3:
        power = math.floor(math.log10(deviation))
        return f"{fixed(deviation / 10**power, 1)} · 10{str(power).translate(RAISED)}"
    return fixed(deviation, _decimals(deviation)) if deviation > 0 else "0"


def clock(seconds: float) -> str:
    """A duration.

    Example:
        >>> clock(34.2), clock(167), clock(3700)
        ('0:34', '2:47', '1:01:40')
    """
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def duration(seconds: float) -> str:
    r"""A short time with its unit.

    Example:
        >>> duration(2.13), duration(0.0123)
        ('2.13\xa0s', '12.3\xa0ms')
    """
    return f"{significant(seconds)}{SPACE}s" if seconds >= 1 else f"{significant(seconds * 1e3)}{SPACE}ms"


def latency(seconds: float, deviation: float | None = None) -> str:
    r"""Seconds a token, with their standard error where it is known.

    Example:
        >>> latency(0.00213), latency(4.2e-6, 4e-8)
        ('2.13\xa0ms', '4.20\xa0µs ± 0.04')
    """
    factor, unit = (1e3, "ms") if seconds >= 1e-3 else (1e6, "µs")
    return with_error(seconds * factor, None if deviation is None else deviation * factor, unit)


def is_share(metric: str) -> bool:
    """Whether a metric is a share that is shown in per cent."""
    return metric.lower().replace("_", " ") in _SHARES


def scale(metric: str) -> float:
    """What a metric is multiplied with to be shown: 100 for a share, else 1."""
    return 100.0 if is_share(metric) else 1.0


def metric_error(metric: Metric) -> float | None:
    """Standard error that a metric's 95 % interval stands for; None without an interval."""
    if metric.low is None or metric.high is None:
        return None
    return (metric.high - metric.low) / (2 * _Z95)


def metric_text(metric: Metric | None) -> str:
    r"""A metric with its standard error, in per cent where it is a share.

    Example:
        >>> metric_text(Metric("accuracy", 0.858, 0.8274, 0.8886, True))
        '85.8\xa0% ± 1.6'
    """
    if metric is None:
        return NONE
    factor = scale(metric.name)
    error = metric_error(metric)
    if error is None and is_share(metric.name):
        return f"{fixed(metric.value * factor, 1)}{SPACE}%"
    return with_error(metric.value * factor, None if error is None else error * factor, "%" if is_share(metric.name) else "")


def metric_interval(metric: Metric) -> str:
    """The 95 % interval in words; empty where there is none."""
    if metric.low is None or metric.high is None:
        return ""
    factor = scale(metric.name)
    decimals = _decimals(max((metric.high - metric.low) * factor / 4, 1e-9))
    return f"{fixed(metric.low * factor, decimals)} to {fixed(metric.high * factor, decimals)}"


def capital(text: str) -> str:
    """Sentence case: the first letter alone is raised, so that KL stays KL."""
    return text[:1].upper() + text[1:]
