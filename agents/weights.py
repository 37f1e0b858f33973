"""Where weights files come from: size, seed, steps, data, training time and the command that made them.

    python -m dfplan.agents.weights                                          # those that come with the package
    python -m dfplan.agents.weights runs/maze2d-large-seed0/weights.safetensors

The parameters are counted. All else stands on the card that training has written: into the file's header, or, for a zip of
stable-baselines3, into a JSON file of the same name beside it. Nothing is unpickled.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import rich.box
import tyro
from rich.markup import escape
from rich.table import Table

from dfplan import command
from dfplan.agents.loading import load, pretrained_names, pretrained_path
from dfplan.quoting import printable

FINGERPRINT = 12
"""Characters of a data fingerprint that are shown; 12 hex digits tell any data sets of ours apart."""


@dataclass(frozen=True)
class Weights:
    """One weights file in figures; None where its card has none."""

    name: str
    """Such as 'maze2d-large'."""
    parameters: int
    """Trained parameters of the agent; of one training seed where the file holds several."""
    seed: int | None
    """Of training."""
    steps: int | None
    """Optimizer steps."""
    data: str | None
    """Name of the training data, such as 'dfplan/maze2d-large-v1', or of the environment that it learned in online."""
    fingerprint: str | None
    """sha256 of the training data, in hex; an agent that learned online has none."""
    training_seconds: float | None
    """Wall time of training, without collecting the data."""
    command: str | None
    """That trained them."""

    @classmethod
    def of(cls, agent: Any, name: str) -> Weights:
        """The figures of an agent; `name` is for one whose card has no name."""
        card: Mapping[str, Any] = agent.card
        data, seed, steps = card.get("data", {}), card.get("seed"), card.get("steps")
        source = data.get("name") or card.get("recipe", {}).get("env_id")
        made = card.get("training_seconds"), card.get("command")
        return cls(card.get("name", name), agent.parameters, seed, steps, source, data.get("fingerprint"), *made)


def shipped() -> list[Weights]:
    """The weights that come with the package, by name."""
    return [Weights.of(load(pretrained_path(name)), name) for name in pretrained_names()]


def read(path: Path) -> Weights:
    """The figures of one file. Raises CheckpointError for a file that is missing or no weights file."""
    return Weights.of(load(path), path.stem)


def to_table(rows: Sequence[Weights]) -> Table:
    """For a terminal, in two lines a row so that it stays narrow."""
    shown = Table(box=rich.box.SIMPLE_HEAD)
    shown.add_column("weights\nmade by", overflow="fold")
    for heading in ("parameters\ntraining", "steps\nseed", "data\nfingerprint"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        first = f"{printable(row.name)}\n  {printable(row.command or '(command unknown)')}"
        data = f"{printable(row.data or '?')}\n{printable((row.fingerprint or '')[:FINGERPRINT])}"
        size = f"{row.parameters:,}\n{_duration(row.training_seconds)}"
        shown.add_row(*map(escape, (first, size, f"{_count(row.steps)}\n{_count(row.seed)}", data)))
    return shown


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _duration(seconds: float | None) -> str:
    """Minutes and seconds, as '38 min 02 s'."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


@dataclass(frozen=True)
class Arguments:
    """Of the command."""

    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Weights files; without any, those that come with the package."""


@command.with_arguments(Arguments, __doc__, prog="python -m dfplan.agents.weights")
def main(arguments: Arguments) -> None:
    """Print the table."""
    rows = [read(path) for path in arguments.files] if arguments.files else shipped()
    if not rows:
        folder = resources.files("dfplan.agents") / "pretrained"
        raise ValueError(f"no weights come with this copy of the package: {folder} holds none")
    command.console().print(to_table(rows))


if __name__ == "__main__":
    sys.exit(main())
