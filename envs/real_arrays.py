"""The room's one rule for numbers that come from outside: finite and real, or a ValueError."""

from __future__ import annotations

import reprlib

import numpy as np
from numpy.typing import NDArray

_REPR = reprlib.Repr()
_REPR.maxother = _REPR.maxstring = 60


def real_array(expected: str, value: object, *shapes: tuple[int | None, ...]) -> NDArray[np.float64]:
    """`value` as a float64 array, if it is one of finite integers or floats; text, booleans and complex numbers are not.

    Args:
        expected: how the sentence of the error begins, as in 'a goal is two finite numbers (x, y)'.
        value: what was given: an array, a list, a tensor on the CPU.
        shapes: those that are allowed, with None for any length; without them, every shape is.

    Raises ValueError, '<expected>, not <value>', for anything else.
    """
    try:
        array = np.asarray(value)
        real = array.dtype.kind in "iuf" and not np.ma.is_masked(value) and bool(np.isfinite(array).all())
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors that numpy cannot read
        raise ValueError(f"{expected}, not {_short(value)}") from error
    if not real:
        raise ValueError(f"{expected}, not {_short(value)}")
    if shapes and not any(_fits(array.shape, shape) for shape in shapes):
        raise ValueError(f"{expected}, not {_short(value)} of shape {array.shape}")
    return array.astype(np.float64, copy=False)


def _fits(shape: tuple[int, ...], allowed: tuple[int | None, ...]) -> bool:
    return len(shape) == len(allowed) and all(b is None or a == b for a, b in zip(shape, allowed, strict=True))


def _short(value: object) -> str:
    return " ".join(_REPR.repr(value).split())  # an array's has several lines
