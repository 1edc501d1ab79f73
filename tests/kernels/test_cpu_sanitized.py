"""The kernels under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from paredown.kernels.cpu import build

SANITIZERS = ("-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def test_no_kernel_touches_what_is_not_its_own(tmp_path):
    command = build.compiler()
    if command is None:
        pytest.skip("no C++ compiler")
    probe = tmp_path / "probe.cpp"
    probe.write_text("int main() { return 0; }\n")
    if subprocess.run([*command, *SANITIZERS, str(probe), "-o", str(tmp_path / "probe")], capture_output=True, check=False).returncode:
        pytest.skip(f"{command[0]} has no sanitizers here")
    library, reason = build.build(flags=SANITIZERS, to=tmp_path / "libkernels.so")
    assert library is not None, reason
    program, source = tmp_path / "sanitized", Path(__file__).with_name("sanitized.cpp")
    made = subprocess.run(
        [*command, "-std=c++17", *SANITIZERS, str(source), str(library), "-pthread", "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "all right" in done.stdout
