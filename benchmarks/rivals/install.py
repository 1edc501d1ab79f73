"""One virtual environment for each rival of `benchmarks/search.py`, in ``benchmarks/rivals/environments`` (1.4 GB each, torch's CPU build included).

They are apart from Paredown's own and from each other: what they import changes what transformers does, and their pins conflict.
torch is installed first and without what it depends on, and every package that Paredown has too is held to its version, so that all
run on the same build. ``python benchmarks/rivals/install.py [--torch-index https://download.pytorch.org/whl/cpu] [NAME ...]``
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE / "environments"
CONSTRAINTS = HERE.parents[1] / "constraints.txt"
PACKAGES = {
    # its extra "hf" asks for deepspeed, diffusers and an older transformers, which auto_quantize does without
    "modelopt": ["nvidia-modelopt==0.47.0", "PuLP==3.3.2", "requests", "transformers", "safetensors"],
    "autoround": ["auto-round==0.16.1", "datasets==5.2.0", "transformers", "safetensors"],
}
MODULES = {"modelopt": "modelopt.torch.quantization", "autoround": "auto_round.auto_scheme"}
TORCH_NEEDS = ["filelock", "fsspec", "jinja2", "networkx", "sympy", "typing-extensions", "setuptools"]
"""What torch's CPU build imports; its other dependencies are CUDA's libraries."""


def python_of(rival: str) -> Path:
    """The interpreter of a rival's environment, whether it is there or not."""
    return ENVIRONMENTS / rival / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def install(rival: str, torch_index: str | None) -> None:
    python = python_of(rival)
    if not python.exists():
        venv.create(ENVIRONMENTS / rival, with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--constraint", str(CONSTRAINTS)]
    subprocess.run([*pip, "--no-deps", *(["--index-url", torch_index] if torch_index else []), "torch"], check=True)
    subprocess.run([*pip, *TORCH_NEEDS, *PACKAGES[rival]], check=True)
    subprocess.run([str(python), "-W", "ignore", "-c", f"import {MODULES[rival]}"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rivals", nargs="*", metavar="NAME", help=f"some of {', '.join(PACKAGES)}; all if none is named")
    parser.add_argument("--torch-index", help="where torch's CPU build is; needed where the usual index gives CUDA builds")
    arguments = parser.parse_args()
    if unknown := set(arguments.rivals) - PACKAGES.keys():
        parser.error(f"no rival is called {', '.join(sorted(unknown))}; there are {', '.join(PACKAGES)}")
    for rival in arguments.rivals or PACKAGES:
        print(f"installing {rival} into {ENVIRONMENTS / rival}", flush=True)
        install(rival, arguments.torch_index)


if __name__ == "__main__":
    main()
