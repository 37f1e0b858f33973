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
from pathlib import Path
from typing import Any, NamedTuple

import rich.box
import tyro
from rich.markup import escape
from rich.table import Table

from dfplan import command
from dfplan.agents.loading import PRETRAINED, load, pretrained_files
from dfplan.quoting import printable

FINGERPRINT = 12
"""Characters of a data fingerprint that are shown."""


class Weights(NamedTuple):
    """One weights file in figures; None where its card has none.

    `parameters` are those of one training seed; `seed` and `steps` those of training, without the time to collect data in
    `training_seconds`. `data` names the training data, or the environment that it learned in online, whose sha256
    `fingerprint` is None.
    """

    name: str
    parameters: int
    seed: int | None
    steps: int | None
    data: str | None
    fingerprint: str | None
    training_seconds: float | None
    command: str | None


def read(path: Path) -> Weights:
    """The figures of one file. Raises CheckpointError for a file that is missing or no weights file."""
    agent = load(path)
    card: Mapping[str, Any] = agent.card
    data = card.get("data", {})
    source = data.get("name") or card.get("recipe", {}).get("env_id")
    seed, steps, seconds, made = map(card.get, ("seed", "steps", "training_seconds", "command"))
    name = card.get("name", path.stem)
    return Weights(name, agent.parameters, seed, steps, source, data.get("fingerprint"), seconds, made)


def to_table(rows: Sequence[Weights]) -> Table:
    """For a terminal, in two lines a row so that it stays narrow."""
    shown = Table(box=rich.box.SIMPLE_HEAD)
    shown.add_column("weights\nmade by", overflow="fold")
    for heading in ("parameters\ntraining", "steps\nseed", "data\nfingerprint"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        minutes, seconds = divmod(round(row.training_seconds or 0), 60)
        training = "?" if row.training_seconds is None else f"{minutes} min {seconds:02d} s"
        steps, seed = ("?" if count is None else f"{count:,}" for count in (row.steps, row.seed))
        made = f"{printable(row.name)}\n  {printable(row.command or '(command unknown)')}"
        data = f"{printable(row.data or '?')}\n{printable((row.fingerprint or '')[:FINGERPRINT])}"
        shown.add_row(*map(escape, (made, f"{row.parameters:,}\n{training}", f"{steps}\n{seed}", data)))
    return shown


@dataclass(frozen=True)
class Arguments:
    """Of the command."""

    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Weights files; without any, those that come with the package."""


@command.with_arguments(Arguments, __doc__, prog="python -m dfplan.agents.weights")
def main(arguments: Arguments) -> None:
    """Print the table."""
    files = arguments.files or pretrained_files()
    if not files:
        raise ValueError(f"no weights come with this copy of the package: {PRETRAINED} holds none")
    command.console().print(to_table([read(path) for path in files]))


if __name__ == "__main__":
    sys.exit(main())
