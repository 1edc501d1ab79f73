"""Compiles our own CPU kernels while the package is built or installed; without a C++ compiler the rest is installed all the same."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "toolkit/paredown/kernels/cpu"


class KernelsHook(BuildHookInterface):
    """Of wheels and editable installations."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and take the library into a wheel, which is then one for this platform."""
        build = _build_module(Path(self.root) / FOLDER / "build.py")
        path, missing = build.build()
        if missing:
            self.app.display_warning(missing)
        if path is not None and version != "editable":
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
            build_data["force_include"][str(path)] = f"paredown/kernels/cpu/built/{path.name}"


def _build_module(path: Path) -> ModuleType:
    """``build.py`` by its path: importing the package would need torch, which is not there yet."""
    spec = importlib.util.spec_from_file_location("paredown_build_kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
