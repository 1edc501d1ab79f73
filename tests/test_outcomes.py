import base64

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.outcomes import Outcomes, shown_arrays, shown_from_arrays
from paredown.specs import Shown

TEXT = st.text(max_size=12)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(0, 1000), TEXT)
def test_outcomes_survive_the_store(units, seed, words):
    draw, total = np.random.default_rng(seed), sum(units)
    made = Outcomes(
        np.array(units, float), *(draw.random(len(units)) for _ in range(4)), draw.integers(0, 9, total).astype(np.int32),
        draw.random(total).astype(np.float32), draw.random(total) < 0.5, (words,) * len(units), {3: words, 7: "</script>"},
    )  # fmt: skip
    read = Outcomes.from_arrays(made.arrays())
    for name in ("units", "kl", "loss", "numerator", "denominator", "answers", "probabilities", "right"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))
        assert getattr(read, name).dtype == getattr(made, name).dtype
    assert (read.written, read.words, read.answered) == (made.written, made.words, total > 0)


def test_changed_units_are_counted_for_each_sample():
    ones = np.ones(3)
    before = Outcomes(np.array([2.0, 0, 3]), ones, ones, ones, ones, np.array([1, 1, 2, 2, 2]))
    after = Outcomes(np.array([2.0, 0, 3]), ones, ones, ones, ones, np.array([1, 4, 2, 0, 0]))
    assert after.changed(before).tolist() == [1, 0, 2]


def test_what_an_earlier_version_kept_is_read_without_answers():
    arrays = {name: np.arange(2.0) for name in ("units", "kl", "loss", "numerator", "denominator")}
    read = Outcomes.from_arrays(arrays)
    assert not read.answered
    assert read.numerator.tolist() == [0, 1]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(TEXT, st.lists(TEXT, max_size=3), st.binary(max_size=9)), max_size=5))
def test_samples_survive_the_store(given):
    samples = tuple(
        Shown(i, text, tuple(labels), tuple(range(len(labels))), "image/png" if content else "", content)
        for i, (text, labels, content) in enumerate(given)
    )
    assert shown_from_arrays(shown_arrays(samples)) == samples


def test_pictures_beyond_the_limit_are_left_out_with_their_samples_kept():
    samples = [Shown(i, labels=("cat",), media="image/png", content=b"12345") for i in range(4)]
    read = shown_from_arrays(shown_arrays(samples, most_bytes=10))
    assert [sample.content for sample in read] == [b"12345", b"12345", b"", b""]
    assert [sample.uri.startswith("data:image/png;base64,") for sample in read] == [True, True, False, False]
    assert read[3].labels == ("cat",)
    assert base64.b64decode(read[0].uri.partition(",")[2]) == b"12345"
