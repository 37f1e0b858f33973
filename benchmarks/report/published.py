"""Scores that others have printed, with their unit and source: `published.json`, read row by row.

They were not measured here. A table shows them in a column of their own, 'reported', never beside a measured score as
if the two were alike: units, episode lengths, data, networks and controllers differ between papers. A difference to one is a
question, not an error of either side.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from dfplan.benchmarks.rows import ROWS

TOLERANCE_POINTS, TOLERANCE_SHARE = 15.0, 0.15
"""A measured score agrees with a printed one if it differs by at most the larger of the two: points, or that share."""


@dataclass(frozen=True)
class Published:
    """One printed score."""

    task: str
    """Environment id, such as 'maze2d-large-v1'."""
    method: str
    score: float
    std: float | None
    """As printed after the plus-minus sign, if anything was."""
    unit: str
    """What the number is, in words; 'as printed' where the paper leaves it open."""
    source: str
    grade: str
    """'A' authors' own repository, 'B' the paper's text as stored by a third party, 'C' a secondary table."""
    suite: str
    note: str

    @property
    def short_unit(self) -> str:
        """The unit without its reservations, short enough to stand under a number: 'normalised', 'as printed', 'success %'."""
        short = self.unit.split(";")[0].split(",")[0].split(" (")[0]
        return short.removeprefix("D4RL-").removesuffix(" x100")

    def __str__(self) -> str:
        """'159 ± 2.7'."""
        return f"{self.score:g}" + ("" if self.std is None else f" ± {self.std:g}")


@cache
def published() -> tuple[Published, ...]:
    """All rows, in the file's order."""
    table = json.loads(files("dfplan.benchmarks.report").joinpath("published.json").read_text(encoding="utf-8"))
    units, sources = table["units"], table["sources"]
    return tuple(
        Published(task, method, float(score), std, units[unit], sources[source], grade, suite, note)
        for task, method, score, std, unit, source, grade, suite, note in table["rows"]
    )


def reported(env_id: str) -> list[Published]:
    """The printed scores (not times) of one environment; empty where nobody has printed any."""
    return [row for row in published() if row.task == env_id and "seconds" not in row.unit]


def printed_for(agent: str, env_id: str) -> list[Published]:
    """The printed scores of a row's own algorithm on an environment; empty where there are none."""
    methods = ROWS[agent].printed if agent in ROWS else ()
    return [row for row in reported(env_id) if row.method in methods]


def agrees(measured: float, printed: float) -> bool:
    """Whether a measured score differs from a printed one by no more than the tolerance."""
    return abs(measured - printed) <= max(TOLERANCE_POINTS, TOLERANCE_SHARE * abs(printed))
