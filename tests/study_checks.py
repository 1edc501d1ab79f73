"""What two studies must share, and how a run must have failed."""

import pytest

from paredown.errors import ParedownError


def figures(study):
    """Everything that a run decides and measures, without times."""
    record = study.record()
    return (
        {digest: (plan.found_by, plan.bytes, plan.loss_increase) for digest, plan in record.plans.items()},
        {digest: (m.kl, m.metric, m.loss, m.flips, m.bytes) for digest, m in record.measurements.items()},
    )


def assert_fails_and_says(study, message):
    with pytest.raises(ParedownError, match=message):
        study.run()
    record = study.record()
    assert record.state == "failed"
    return record


def assert_is_interrupted(study):
    with pytest.raises(KeyboardInterrupt):
        study.run()
    record = study.record()
    assert record.state == "cancelled"
    assert record.message == "interrupted; everything so far is saved, and the same command goes on from here"
    return record
