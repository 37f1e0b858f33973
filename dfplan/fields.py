"""Fields of configs: their types and ranges stand in the annotation, and are checked when a config is made.

@dataclass(frozen=True)
class Config:
    steps: Count = 20

    def __post_init__(self) -> None:
        check_fields(self)
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, get_type_hints

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

Count = Annotated[int, Field(ge=1)]
"""A whole number, at least 1."""
Whole = Annotated[int, Field(ge=0)]
"""A whole number, at least 0."""
Positive = Annotated[float, Field(gt=0)]
"""A finite number above 0."""
PositiveOrInf = Annotated[float, Field(gt=0, allow_inf_nan=True)]
"""A number above 0, or infinity."""
NotNegative = Annotated[float, Field(ge=0)]
"""A finite number, at least 0."""
Size = Annotated[int, Field(ge=1, le=2**20)]
"""A width, a length, or a number of columns or samples: a whole number from 1 to a million or so. The bound is far beyond any
use: it keeps small what is made of a damaged file before its shapes are compared with the config's."""
SizeOrZero = Annotated[int, Field(ge=0, le=2**20)]
"""The same, or 0 for none."""
Depth = Annotated[int, Field(ge=1, le=1000)]
"""A number of layers: a whole number from 1 to 1000."""
Octaves = Annotated[int, Field(ge=0, le=64)]
"""A number of octaves: a whole number from 0 to 64, beyond which float32 resolves no angle."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A number from 0 to 1."""


def check_columns(columns: Sequence[int], width: int, name: str) -> None:
    """Raise ValueError, with one sentence, unless `columns` are different ones of an observation `width` columns wide."""
    if len(set(columns)) < len(columns) or not all(0 <= column < width for column in columns):
        raise ValueError(
            f"{name} must be different columns of the observation, in 0..{width - 1}, got {tuple(columns)}"
        )


def check_fields(config: Any) -> None:
    """Raise ValueError, with one sentence, unless each field of a dataclass is of its annotated type and range.

    Types are strict: 2.5, '8' and True are no whole numbers. NaN and infinity are refused, but where the annotation
    allows them. A whole number is a number, NumPy's scalars become Python's, and lists (JSON has no tuples) tuples.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, np.generic):
            object.__setattr__(config, field.name, value.item())
        elif isinstance(value, list):
            object.__setattr__(config, field.name, tuple(value))
    try:
        _schema(config.__class__).model_validate({f.name: getattr(config, f.name) for f in dataclasses.fields(config)})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].replace("Input should", "must", 1)
        raise ValueError(f"{type(config).__name__}: {where} {message}, got {reprlib.repr(first['input'])}") from None


class CheckedFields:
    """A dataclass of this class checks its fields when it is made: see `check_fields`. One with more rules adds them after."""

    def __post_init__(self) -> None:
        check_fields(self)


@cache
def _schema(config_class: type) -> type[BaseModel]:
    hints = get_type_hints(config_class, include_extras=True)
    fields: dict[str, Any] = {field.name: (hints[field.name], ...) for field in dataclasses.fields(config_class)}
    strict = ConfigDict(strict=True, allow_inf_nan=False, protected_namespaces=(), arbitrary_types_allowed=True)
    return create_model(config_class.__name__, __config__=strict, **fields)
