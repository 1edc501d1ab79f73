"""The grammar of the filter: what each phrase keeps, and what is said of one that breaks off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_study import candidates, layers
from paredown.errors import ParedownError
from paredown.specs import KEEP, Scheme
from paredown_widgets.filtering import Layer, matching
from paredown_widgets.labels import label_layers

BLOCKS = 12


def model(schemes: dict[str, str] | None = None) -> list[Layer]:
    """Twelve blocks at 4 bits, but for what is said otherwise; block 2 is locked."""
    made, labels = layers(BLOCKS), label_layers(layers(BLOCKS))
    found = []
    for index, layer in enumerate(made):
        text = labels[layer.name].text
        scheme = Scheme.parse((schemes or {}).get(text, "int4g64")) if (schemes or {}).get(text) != "keep" else KEEP
        priced = {c.scheme: c for c in candidates(layer, index, ("int2g64", "int4g64", "int8g64"))}
        states = frozenset({"locked"} if labels[layer.name].index == 2 else ())
        found.append(Layer(layer.name, labels[layer.name], scheme, priced.get(scheme), states))
    return found


SCHEMES = {
    "Block 1 q": "int2g64",
    "Block 1 fc1": "int3g64+2:4",
    "Block 3 o": "int8g64",
    "Block 4 o": "keep",
    "Block 5 v": "int4g64+eora16",
    "Pooler": "int4g64-gptq",
}


def kept(text: str) -> list[str]:
    names = matching(text, model(SCHEMES))
    assert names is not None
    labels = label_layers(layers(BLOCKS))
    return [labels[name].text for name in names]


def blocks(numbers: range | list[int], *roles: str) -> list[str]:
    return [f"Block {number} {role}" for number in numbers for role in roles]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("block 3-4 fc*", blocks([3, 4], "fc1", "fc2")),
        ("q k v of blocks 8-11", blocks(range(8, 12), "q", "k", "v")),
        ("All q/k of blocks 8 to 9".replace("/", " "), blocks([8, 9], "q", "k")),
        ("o in blocks 0, 2, 5-6", blocks([0, 2, 5, 6], "o")),
        ("block3 fc1", ["Block 3 fc1"]),
        ("bits < 4", ["Block 1 q", "Block 1 fc1"]),
        ("bits<=3 fc*", ["Block 1 fc1"]),
        ("bits > 4", ["Block 3 o", "Block 4 o"]),
        ("bits = 8", ["Block 3 o"]),
        ("kept", ["Block 4 o"]),
        ("sparsity > 0", ["Block 1 fc1"]),
        ("sparsity >= 50%", ["Block 1 fc1"]),
        ("rank >= 16", ["Block 5 v"]),
        ("gptq", ["Pooler"]),
        ("int3*", ["Block 1 fc1"]),
        ("size > 1 MB and bits < 8", ["Embeddings"]),
        ("size > 1000 bits < 8", ["Embeddings"]),
        ("locked q", ["Block 2 q"]),
        ("not locked block 2-3 q", ["Block 3 q"]),
        ("unlocked o block 2-3", ["Block 3 o"]),
        ("not fc* not q not k not v block 7", ["Block 7 o"]),
        ("block 0 q or kept", ["Block 0 q", "Block 4 o"]),
        ("rank > 0; block 11 fc2", ["Block 5 v", "Block 11 fc2"]),
        ("attention.self.query block 6", ["Block 6 q"]),
        ("nothing-of-the-sort", []),
        ("[x] a.b", []),
    ],
)
def test_a_filter_keeps_what_its_words_say(text: str, expected: list[str]) -> None:
    assert kept(text) == expected


def test_an_empty_filter_keeps_all() -> None:
    assert matching("  ", model()) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bits", r"bits: expected a comparison after it, such as bits < 4"),
        ("bits <", r"bits <: expected a number after it, such as bits < 4, got nothing"),
        ("bits < many", r"such as bits < 4, got many"),
        ("< 4", r"expected one of bits, sparsity, rank, size, loss, error before it, such as bits < 4"),
        ("block", r"block: expected a number or a range after it, such as block 3 or blocks 8-11"),
        ("blocks q", r"expected a number or a range"),
        ("q or", r"or: expected something on both sides"),
        ("; q", r"on both sides"),
        ("not", r"not: expected what must not hold after it"),
    ],
)
def test_what_breaks_off_is_told_what_was_expected(text: str, said: str) -> None:
    with pytest.raises(ParedownError, match=said):
        kept(text)


@given(st.text(alphabet="qkvfc0123-–*<>=!%;, blocksitrankortlsz.[]?()é", max_size=24))
def test_no_text_is_anything_but_a_filter_or_an_error_in_words(text: str) -> None:
    every = {layer.name for layer in model()}

    def outcome() -> set[str] | str:
        try:
            names = matching(text, model())
        except ParedownError as error:
            return str(error)
        return every if names is None else set(names)

    found = outcome()
    assert "expected" in found if isinstance(found, str) else found <= every
