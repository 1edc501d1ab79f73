"""What plans did to each held-out sample: kept in the study, with the samples as a person sees them, and held against each other."""

from __future__ import annotations

from paredown.errors import ParedownError
from paredown.evaluation.paired import Compared, compare_samples
from paredown.outcomes import Outcomes, shown_arrays, shown_from_arrays
from paredown.specs import ModelInfo, Plan, Shown
from paredown.store import Store
from paredown.study.journal import Journal
from paredown.study.session import Session, outcomes_name

_SHOWN = "shown-held-out"


def keep_samples(session: Session, journal: Journal) -> None:
    """Keep the held-out samples as a person sees them, where the study has not done so; in a study of before, the original's answers too."""
    store = journal.store
    if store.load_arrays(_SHOWN) is not None:
        return
    with journal.tolerating("the held-out samples can't be shown"):
        indices = [index for batch in session.held_out for index in batch.ids]
        store.save_arrays(_SHOWN, shown_arrays([session.task.shown("held_out", index) for index in indices]))
    baseline = journal.record.baseline
    if baseline is not None:
        original = session.original()
        store.save_arrays(outcomes_name(baseline.plan_digest), session.outcomes(original, original).arrays())


def shown_samples(store: Store) -> tuple[Shown, ...]:
    """The held-out samples as a person sees them, in the order of the outcomes; none in a study of before they were kept."""
    arrays = store.load_arrays(_SHOWN)
    return () if arrays is None else shown_from_arrays(arrays)


def kept(store: Store, digest: str) -> Outcomes | None:
    """What a plan did to each held-out sample; None where it was not measured, or so early that nothing was kept."""
    arrays = store.load_arrays(outcomes_name(digest))
    return None if arrays is None else Outcomes.from_arrays(arrays)


def compared(store: Store, info: ModelInfo, one: Plan, other: Plan, seed: int = 0) -> Compared:
    """Hold two plans of a study against each other, on the held-out samples that both were measured on.

    Args:
        store: The study's.
        info: What it is about.
        one: A plan.
        other: Another.
        seed: Seed of the bootstrap.

    Raises:
        ParedownError: If the samples of one of them were not kept.
    """
    first, second = (kept(store, plan.digest) for plan in (one, other))
    for plan, samples in ((one, first), (other, second)):
        if samples is None:
            raise ParedownError(
                f"the plan {plan.digest} ({plan.found_by}) was not measured, or by an earlier version, which kept no samples; measure it again"
            )
    assert first is not None
    assert second is not None
    return compare_samples(first, second, metric=info.metric, higher_is_better=info.higher_is_better, seed=seed)
