"""Arrays that users give: read as real, finite numbers of an expected shape, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Shape = tuple[int | str, ...]
"""Sizes of an array; a name stands for any size from 1 on."""


def read(
    value: Any, what: str, *shapes: Shape, dtype: type[np.floating[Any]] = np.float32, unknown: bool = False
) -> NDArray[Any]:
    """`value` as an array of its own, of one of the shapes, real, and finite in float32; NaN may stand in it if `unknown`.

    Raises ValueError, with one sentence that begins with `what`, for anything else: complex numbers, text, None,
    dictionaries, objects, lists of unequal length, empty arrays, NaN and infinity.
    """
    array, found = _array(value), None
    if array is None:
        found = "parts that make no array"
    elif array.dtype.kind not in "fiu" or np.ma.is_masked(value):
        found = _kind(value, array)
    elif not any(_fits(array.shape, shape) for shape in shapes):
        found = f"shape {array.shape}"
    else:
        with np.errstate(over="ignore"):
            small = array.astype(np.float32)
            finite = (np.isfinite(small) | (np.isnan(small) & unknown)).all()
        if not finite:
            found = "a number beyond the range of float32" if np.isfinite(array).all() else "NaN or infinity"
    if found is not None:
        raise ValueError(f"{what} must be {' or '.join(map(_written, shapes))}, finite real numbers, got {found}")
    return np.array(array, dtype=dtype)


def read_parts(value: Any, parts: Mapping[str, Shape], who: str) -> list[NDArray[Any]]:
    """The arrays of a training batch, a tuple, in their order; a size that has a name is the same in all parts.

    Raises ValueError, which begins with `who`, for another number of parts, and for a part that is not of its shape or not
    finite.
    """
    given = list(value) if isinstance(value, list | tuple) else []
    if len(given) != len(parts):
        found = f"{len(given)} parts" if given else f"a {type(value).__name__}"
        raise ValueError(f"{who}a batch must be ({', '.join(parts)}), got {found}")
    sizes: dict[str, int] = {}
    arrays = []
    for part, (what, shape) in zip(given, parts.items(), strict=True):
        expected = tuple(sizes.get(size, size) if isinstance(size, str) else size for size in shape)
        arrays.append(read(part, f"{who}the batch's {what}", expected))
        sizes |= {size: n for size, n in zip(shape, arrays[-1].shape, strict=True) if isinstance(size, str)}
    return arrays


def read_rows(value: Any, batch: int | None, what: str) -> NDArray[np.intp]:
    """Whole numbers that are rows of a batch of that many, None: of any; or a mask of them, one bool for each row.

    Raises ValueError, which begins with `what`.
    """
    index = _array(value)
    if index is not None and index.dtype == np.bool_ and index.shape == (batch,):
        return np.flatnonzero(index)
    if index is None or (index.size and index.dtype.kind not in "iu"):
        found = "parts that make no array" if index is None else _kind(value, index)
        raise ValueError(f"{what}a batch must be whole numbers, got {found}")
    index = index.reshape(-1).astype(np.intp)
    if len(index) and (index.min() < 0 or (batch is not None and index.max() >= batch)):
        inside = "from 0 on" if batch is None else f"from 0 to {batch - 1}"
        raise ValueError(f"{what}this batch must be {inside}, got {_short(index.tolist())}")
    return index


def read_whole(value: Any, what: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`. Raises ValueError, which begins with `what`, for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise ValueError(f"{what} must be a whole number from {low} to {high}, got {value!r}")
    return int(value)


def _array(value: Any) -> NDArray[Any] | None:
    """As NumPy takes it; None for what makes no array. A tensor may lie on any device and have a gradient."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).resolve_conj().resolve_neg().numpy()
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _fits(found: tuple[int, ...], shape: Shape) -> bool:
    return len(found) == len(shape) and all(
        n > 0 and (isinstance(size, str) or n == size) for n, size in zip(found, shape, strict=True)
    )


def _written(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _kind(value: Any, array: NDArray[Any]) -> str:
    """What was given instead of real numbers, in words."""
    if value is None:
        return "None"
    if isinstance(value, Mapping):
        return f"a dictionary of {_short(list(value))}"
    if np.ma.is_masked(value):
        return "masked entries"
    kinds = {
        "c": "complex numbers",
        "U": "text",
        "S": "text",
        "O": "objects",
        "M": "dates",
        "m": "times",
        "V": "records",
    }
    return kinds.get(array.dtype.kind, f"{array.dtype} values")


def _short(values: list[Any]) -> str:
    return str(values) if len(values) < 8 else f"{str(values[:7])[:-1]}, ...]"
