"""Configurations as plain JSON and back, for the headers of files; the schema is the dataclasses' own annotations.

What is read is checked strictly: every field has the type that its annotation says, no text for a number, no 1.5 for a
whole one, no NaN, no field that the class does not have. Nested dataclasses, tuples, literals, dictionaries and unions
(told apart by a field `kind`) need no code of their own. Fields that are not there take their defaults, so that files of
an older version still load.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError

from dfplan.quoting import shortened

C = TypeVar("C")


def config_from_json(cls: type[C], data: Any, name: str = "config") -> C:
    """The `cls` that plain JSON values describe. Raises ValueError with one sentence that names the field within `name`."""
    value: C = _read(cls, data, name, unknown="forbid")
    return value


def config_to_json(config: Any) -> dict[str, Any]:
    """Plain JSON values of a dataclass; `config_from_json` gives an equal one back. ValueError if they cannot be JSON."""
    schema: Any = type(config)
    try:
        values: dict[str, Any] = _adapter(schema).dump_python(config, mode="json", warnings=False)
    except PydanticSerializationError as error:
        raise ValueError(f"{type(config).__name__} cannot be written as JSON: {error}") from error
    return values


def checked(schema: Any, data: Any, name: str) -> Any:
    """The same JSON values, if they fit a schema such as a TypedDict; keys that it does not name are kept.

    Raises ValueError with one sentence that names the field within `name`.
    """
    return _read(schema, data, name, unknown="allow")


def _read(schema: Any, data: Any, name: str, unknown: Any) -> Any:
    try:
        # As text: a strict reader takes a JSON list for a tuple, but no Python list.
        text = json.dumps(data, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not plain JSON ({error})") from error
    try:
        return _adapter(schema).validate_json(text, strict=True, extra=unknown)
    except ValidationError as error:
        raise ValueError(_sentence(error.errors(include_url=False)[0], name)) from error


def _sentence(problem: ErrorDetails, name: str) -> str:
    field = ".".join([name, *map(str, problem["loc"])])
    if problem["type"] == "value_error":
        return f"{field}: {problem['ctx']['error']}"
    if problem["type"] == "missing":
        return f"{field} is missing"
    if problem["type"] == "unexpected_keyword_argument":
        return f"{field} is unknown here"
    return f"{field}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {shortened(repr(problem['input']), 60)}"


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)
