from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods.codebooks import e2m1_codes, e2m1_values, nearest, normal_float, round_to_e2m1
from reference.floats import e2m1, nearest_index

# Dettmers et al., QLoRA, 2023, appendix E
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


def test_four_bits_are_the_published_table():
    assert (normal_float(4) - torch.tensor(NF4)).abs().max() < 1e-7


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_table_ascends_from_minus_one_to_one_through_zero(bits):
    table = normal_float(bits)
    assert len(table) == 2**bits
    assert (table.diff() > 0).all()
    assert (table[0], table[-1]) == (-1, 1)
    assert 0 in table


def test_another_width_is_refused():
    with pytest.raises(ParedownError, match="2, 3 or 4 bits, got 8"):
        normal_float(8)


@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=20), st.sampled_from([2, 3, 4]))
def test_the_nearest_entry_is_that_of_the_slow_loop(values, bits):
    table = normal_float(bits)
    found = table[nearest(torch.tensor(values), table).long()]
    slow = torch.tensor([table[nearest_index(value, table.tolist())] for value in values])
    assert torch.allclose((found - torch.tensor(values)).abs(), (slow - torch.tensor(values)).abs(), rtol=0, atol=2e-7)


@given(st.floats(-20, 20, width=32))
def test_e2m1_rounds_as_another_librarys_float4(value):
    assert round_to_e2m1(torch.tensor(value)).item() == e2m1(value)


def test_ties_go_to_the_even_mantissa():
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.0])
    even = torch.tensor([0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0])
    assert torch.equal(round_to_e2m1(ties), even)
    assert torch.equal(round_to_e2m1(-ties), -even)


def test_codes_are_the_bits_of_the_float_and_come_back():
    codes = torch.arange(16, dtype=torch.uint8)
    values = e2m1_values(codes)
    assert values.tolist() == codes.numpy().view(ml_dtypes.float4_e2m1fn).astype(np.float32).tolist()
    again = e2m1_codes(values)
    assert torch.equal(e2m1_values(again), values)
    assert torch.equal(again[1:8], codes[1:8])
    assert torch.equal(again[9:], codes[9:])
    assert again[8] == 0  # zero has no sign
