"""Which plan a person means: by digest, by file, or the best measured one at a size."""

from __future__ import annotations

import math

from paredown.errors import ParedownError
from paredown.record import Record
from paredown.specs import Plan
from paredown.study.steps import UniformSizes


def choose(record: Record, name: str | None, bits: float | None) -> Plan:
    """Find a plan of a study.

    Args:
        record: The study.
        name: First digits of a plan's digest.
        bits: In place of a name: the smallest measured KL (loss, where there is none) at the bytes of the uniform plan of so many
            bits, interpolated between the uniform plans.

    Returns:
        The plan.

    Raises:
        ParedownError: If both or neither are given, no plan or several match, or nothing that small was measured.
    """
    if (name is None) == (bits is None):
        raise ParedownError("expected either a plan (its digest or file) or a number of bits; see the digests with `paredown plans`")
    if name is not None:
        matches = [plan for digest, plan in record.plans.items() if digest.startswith(name)]
        if len(matches) != 1:
            raise ParedownError(
                f"expected the first digits of one plan's digest, but {len(matches)} plans begin with {name!r}; see them with `paredown plans`"
            )
        return matches[0]
    assert bits is not None
    limit = UniformSizes.of(record.plans.values()).at(bits)
    fitting = [
        (measured, record.plans[digest])
        for digest, measured in record.measurements.items()
        if measured.bytes <= limit and digest in record.plans
    ]
    if not fitting:
        raise ParedownError(
            f"no plan of at most {limit:,} bytes was measured; see the measured ones with `paredown plans`, or raise the bits"
        )

    def damage(pair: tuple) -> tuple[float, int]:
        measured = pair[0]
        value = measured.kl if measured.kl is not None else measured.loss
        if value is None:
            value = -measured.metric.value if measured.metric.higher_is_better else measured.metric.value
        return (value if math.isfinite(value) else math.inf, measured.bytes)

    return min(fitting, key=damage)[1]
