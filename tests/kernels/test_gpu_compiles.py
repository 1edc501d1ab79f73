"""The Triton kernels compile to machine code of GPUs, for which none is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = (
    "int3g16 1 bfloat16 80",
    "int4g128 128 bfloat16 90",
    "nf4g64+2:4 128 float16 80",
    "int8a8+svd140 128 float32 90",
    "int4g64+svd7:4 40 float32 80",
)
SHARED = 99 << 10  # bytes that a program may take on compute capability 8.6, the least since 8.0


def test_the_kernels_compile_and_fit_into_shared_memory(tmp_path):
    pytest.importorskip("triton", reason="triton is not installed")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("compile_for_gpus.py")), *CASES],
        env=os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    kernels = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(kernels) > len(CASES)
    assert {capability for capability, _, _ in kernels} == {80, 90}
    assert all(shared <= SHARED and code for _, shared, code in kernels), kernels
