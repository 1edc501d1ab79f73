"""What is asked of a CUDA device, what is refused without one, and how the fastest is found; no GPU is needed."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from packed_weights import packed
from paredown.errors import ParedownError
from paredown.kernels import dispatch, linear, prepare, reference
from paredown.kernels.backends import UnfitError
from paredown.kernels.gpu import timing

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture
def pretend_gpu(monkeypatch):
    """Let the CPU pass for a CUDA device."""
    monkeypatch.setattr("paredown.kernels.gpu.backends.without_device", lambda *_: "")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(multi_processor_count=4))
    monkeypatch.setattr(timing, "_known", {})


@needs_no_gpu
@pytest.mark.parametrize(
    ("backend", "scheme"), [("triton", "int3g64"), ("tinygemm", "int4g64"), ("int_mm", "int8syma8"), ("semi_structured", "2:4")]
)
def test_without_a_gpu_each_says_so(backend, scheme):
    with pytest.raises(ParedownError, match=r"there is no CUDA device|triton is not installed"):
        prepare(packed(scheme, (64, 128)), backend=backend, dtype=torch.bfloat16)


def test_without_triton_all_is_imported_and_says_so():
    program = """
import sys
sys.modules["triton"] = None
import torch
from paredown.kernels import pack, prepare
from paredown.methods import compress
from paredown.specs import Scheme
try:
    prepare(pack(compress(torch.randn(16, 32), Scheme.parse("int3g32"))), backend="triton")
except Exception as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "triton is not installed" in done.stdout


@pytest.mark.parametrize(
    ("backend", "scheme", "shape", "precision", "why"),
    [
        ("triton", "2:4", (64, 128), "bf16", "its kept weights have no number format"),
        ("tinygemm", "int3g64", (64, 128), "bf16", "plain integers of 4 bits"),
        ("tinygemm", "int4g64", (64, 128), "float32", "bfloat16 inputs"),
        ("tinygemm", "int4g64", (64, 192), "bf16", "inputs that 128 divides"),
        ("int_mm", "int8sym", (64, 128), "int8", "inputs that each token's own range rounds"),
        ("int_mm", "int8a8", (64, 128), "int8", "symmetric integers of 8 bits"),
        ("int_mm", "int8g64syma8", (64, 128), "int8", "one scale a channel"),
        ("int_mm", "int8syma8+svd4", (64, 128), "int8", "neither pruned nor corrected"),
        ("int_mm", "int8syma8", (64, 100), "int8", "inputs and outputs that 8 divides"),
        ("semi_structured", "int4g64", (64, 128), "bf16", "weights at 2:4"),
        ("semi_structured", "2:4", (64, 96), "bf16", "inputs and outputs that 64 divides"),
        ("semi_structured", "int4g64a8+2:4", (64, 128), "int8", "16-bit inputs that nothing rounds"),
    ],
)
def test_what_a_backend_can_not_serve_is_refused_with_the_reason(pretend_gpu, backend, scheme, shape, precision, why):
    if backend == "triton":
        pytest.importorskip("triton", reason="triton is not installed")
    with pytest.raises(ParedownError, match=why):
        prepare(packed(scheme, shape), precision, backend=backend, dtype=torch.bfloat16)


@pytest.mark.parametrize("scheme", ["int8syma8", "int8n8syma8"])
def test_the_product_of_integers_is_the_references_and_keeps_what_is_not_finite(pretend_gpu, scheme):
    held, x, bias = packed(scheme, (48, 64)), torch.randn(2, 5, 64), torch.randn(48)
    kernel = prepare(held, backend="int_mm")
    torch.testing.assert_close(
        linear(x, kernel, bias, "gelu"), torch.nn.functional.gelu(reference.linear(x, held, bias)), rtol=1e-4, atol=1e-4
    )
    x[1, 3, 7] = torch.inf
    broken = linear(x, kernel, bias)
    assert broken[1, 3].isnan().all()
    assert int(broken.isnan().sum()) == 48


@pytest.mark.parametrize(("seconds", "best"), [({"dense": 4e-5, "triton": 1e-5}, "triton"), ({"dense": 1e-5, "triton": 4e-5}, "dense")])
def test_on_a_gpu_the_fastest_of_those_that_can_is_taken_and_told(pretend_gpu, monkeypatch, seconds, best):
    pytest.importorskip("triton", reason="triton is not installed")
    asked = []

    def clock(jobs):
        asked.append(set(jobs))
        for job in jobs.values():
            job()
        return {name: seconds[name] for name in jobs}

    monkeypatch.setattr(timing.times, "__defaults__", (clock,))
    for _ in range(2):  # the second one knows
        chosen = dispatch._fastest(packed("int3g64"), "bf16", torch.float32)  # what `prepare` calls for a weight on a CUDA device
    other = ({"dense", "triton"} - {best}).pop()
    assert asked == [{"dense", "triton"}] * len(timing.TOKENS)
    assert chosen.backend == best
    assert "10 us at 1 token, 10 us at 128 on a card" in str(chosen)
    assert f"not {other}: slower, 40 us at 1 token" in str(chosen)
    assert "not tinygemm: it takes plain integers of 4 bits" in str(chosen)


def test_a_product_that_fails_or_is_wrong_on_a_device_is_passed_over():
    x = torch.randn(3, 8)

    def times_of(by):
        return lambda x, bias, activation: x * by

    def prepared(by):
        return lambda: ("", 0, times_of(by), "bf16")

    def failing():
        raise RuntimeError("out of resources:\nshared memory")

    assert timing.tried(prepared(2.01), [x, x], times_of(2))[3] == "bf16"
    for by, said in ((3, "off by 0.5"), (torch.nan, "off by nan")):
        with pytest.raises(UnfitError, match=said):
            timing.tried(prepared(by), [x], times_of(2))
    with pytest.raises(UnfitError, match="RuntimeError: shared memory"):
        timing.tried(failing, [x], times_of(2))
