"""The run: steps, cache, cancel, resume."""

from paredown.study.study import Study

__all__ = ["Study"]
