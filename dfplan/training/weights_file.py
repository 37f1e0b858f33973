"""Weights files: a checkpoint whose header says what was trained, how it acts, and where it comes from.

Every agent's `save` and `load` go through here, so that all of them refuse the same damages with the same sentences. The
order matters: the header is checked first, then the shapes of the tensors against those that its configuration asks for,
and only then is a model of that size made. A file that claims a width of a billion costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field
from pydantic_core import from_json
from torch import Tensor, nn
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from dfplan.config_json import checked, config_from_json, config_to_json
from dfplan.data.statistics import bounded_since
from dfplan.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_header,
    load_into,
    require_finite,
    require_tensors,
    save_checkpoint,
)
from dfplan.whole_files import opened

C = TypeVar("C")

PICTURES = "pictures."
"""What the names of the tensors begin with that make numbers of pictures."""
LARGEST_CARD = 2**24
"""Bytes of a card's JSON file that are read."""


Number = Annotated[int, Field(ge=0, lt=2**63)]
"""A seed or a number of steps, which tables write out."""


class Data(TypedDict, total=False):
    """Recorded data that weights were trained on."""

    name: str
    steps: Number
    fingerprint: str


class Trained(TypedDict, total=False):
    """A recipe of online learning, of which tables show the environment."""

    env_id: str


class Hardware(TypedDict, total=False):
    """The machine that trained the weights."""

    cpu: str | None
    gpu: str | None
    accelerator: str | None
    threads: Number | None


class Score(TypedDict, total=False):
    """What was measured when the weights were made; of training seeds in one file, each one's."""

    env: str
    normalized: float
    each: Annotated[list[dict[str, Any]], Field(min_length=1)]


class Card(TypedDict, total=False):
    """What a weights file says of its own making. All of it may be missing, and a user's card may say more."""

    name: str
    command: str
    seed: Number
    seeds: list[Number]
    steps: Number
    training_seconds: Annotated[float, Field(ge=0, le=1e12)]
    data: Data
    recipe: Trained
    hardware: Hardware | str
    metrics: dict[str, float]
    curve: list[dict[str, float]]
    score: Score | float
    agent: dict[str, Any]


@dataclass(frozen=True)
class Header:
    """What a weights file says before its tensors."""

    kind: str
    """The algorithm, which `dfplan.agents.loading` finds by this name."""
    config: dict[str, Any]
    """The model's configuration."""
    card: dict[str, Any]
    """Where the weights come from: a `Card`."""
    agent: dict[str, Any] | None = None
    """The configuration of how it acts, where it is no part of the card."""
    critics: bool | None = None
    """Of learners with critics: whether the tensors are all that was trained, or only what acting needs."""
    pictures: dict[str, Any] | None = None
    """The configuration of what makes numbers of pictures, whose tensors' names begin with `PICTURES`; None: there is none."""


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], header: Header) -> None:
    """Write a weights file, whole or not at all, that `load_weights` reads.

    Raises ValueError for weights that are not finite, a card that is not a `Card`, and what is not JSON; OSError when the
    file cannot be written.
    """
    require_finite(tensors, f"{path} is not written, its tensors are no weights")
    checked(Card, header.card, "card")
    save_checkpoint(path, tensors, {name: part for name, part in config_to_json(header).items() if part is not None})


def load_weights(path: str | Path, kind: str) -> tuple[dict[str, Tensor], Header]:
    """Tensors and header of a weights file. Raises CheckpointError for a file that is missing, damaged or of another kind."""
    tensors, values = load_checkpoint(path)
    if values.get("kind") != kind:
        raise CheckpointError(f"{path} holds {values.get('kind')!r}, not the weights of {kind!r}")
    card_of(values.get("card", {}), path)
    try:
        return tensors, config_from_json(Header, values, "header")
    except ValueError as error:
        raise CheckpointError(f"{path} is no weights file: {error}") from error


def kind_in(path: str | Path) -> str:
    """The kind of a weights file, from its header alone. CheckpointError for a file that is none."""
    kind = load_header(path).get("kind")
    if not isinstance(kind, str):
        raise CheckpointError(f"{path} holds {kind!r}, not the weights of an agent: its header names no kind")
    return kind


def card_of(values: Any, path: str | Path) -> dict[str, Any]:
    """The card that JSON values are. Raises CheckpointError, naming `path`, where they are none."""
    try:
        card: dict[str, Any] = checked(Card, values, "card")
    except ValueError as error:
        raise CheckpointError(f"the card of {path} is none: {error}") from error
    return card


def card_beside(path: str | Path) -> dict[str, Any]:
    """The card of a file that cannot hold one, from the JSON file of its name beside it; without that file, empty.

    Raises CheckpointError, naming the JSON file, if it cannot be read or is no card.
    """
    beside = Path(path).with_suffix(".json")
    try:
        with opened(beside) as file:
            values = from_json(file.read(LARGEST_CARD + 1), allow_inf_nan=False)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{beside}, the card of {Path(path).name}, cannot be read: {error}") from error
    return card_of(values, beside)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Turn what a configuration of `path` makes this version raise into a CheckpointError that names the file."""
    try:
        yield
    except CheckpointError:
        raise
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} describes what this version cannot build: {error or type(error).__name__}"
        ) from error


def restored(
    model_class: Callable[[C], nn.Module],
    config_class: type[C],
    values: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    path: str | Path,
    only: tuple[str, ...] = ("",),
) -> Any:
    """The model of a configuration, given as JSON values, with the tensors of a file: in evaluation mode, on the CPU.

    All of it is float32, whatever torch's default is. A `former_names` of the class renames tensors of older files: the
    beginnings of their names, and its `former_config` holds fields that they lack. Normalizers of older files have no bounds.
    `only` are beginnings of the names that the file holds, where it does not hold all; the other parts have their initial
    values. `path` names the file.

    Raises CheckpointError for a configuration that is none and for tensors that do not fit it.
    """
    with naming(path), torch.inference_mode(False), torch.device("cpu"):
        config = config_from_json(config_class, {**getattr(model_class, "former_config", {}), **values}, "config")
        for former, name in getattr(model_class, "former_names", {}).items():
            tensors = {
                name + key[len(former) :] if key.startswith(former) else key: part for key, part in tensors.items()
            }
        with torch.device("meta"):  # shapes without memory
            expected = model_class(config).float().state_dict()
        tensors = bounded_since(tensors, expected)
        asked = {name: tensor for name, tensor in expected.items() if name.startswith(only)}
        complaint = f"the tensors of {path} do not fit {getattr(model_class, '__name__', 'its model')}"
        require_tensors(asked, tensors, complaint, dtypes=False)
        model = model_class(config).float()
        load_into(model, {n: t for n, t in model.state_dict().items() if n not in asked} | dict(tensors), path)
        return model.eval()
