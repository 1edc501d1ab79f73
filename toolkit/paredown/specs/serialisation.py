"""JSON of every value of this package, and back."""

from __future__ import annotations

import functools
import json
from typing import Any, TypeVar

from paredown.errors import ParedownError

Value = TypeVar("Value")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON of any value of this module; floats that are not finite are refused.

    Raises:
        ParedownError: If a number is NaN or infinite.
    """
    plain = _adapter(type(value)).dump_python(value, mode="json")
    try:
        return json.dumps(plain, indent=indent, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise ParedownError(f"a {type(value).__name__} holds a number that is not finite and can't be stored: {value}") from error


def from_json(kind: type[Value], text: str | bytes) -> Value:
    """Read a value of the given type back from its JSON.

    Raises:
        ParedownError: If the text is no JSON, lacks a field, or holds one of the wrong type.
    """
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the text"
        raise ParedownError(f"expected the JSON of a {kind.__name__}, but {where}: {first['msg']}") from error


@functools.cache
def _adapter(kind: type) -> Any:
    from pydantic import TypeAdapter  # slow to import: only when JSON is asked for

    return TypeAdapter(kind)
