"""Scores that others have printed, with their unit and source: `published.json`, read row by row.

They were not measured here. A table shows them in a column of their own, 'reported', never beside a measured score as
if the two were alike: units, episode lengths and execution differ between papers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


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
        """The unit without its reservations: 'D4RL-normalised x100', 'as printed', 'success %'."""
        return self.unit.split(";")[0].split(",")[0].split(" (")[0]


@cache
def published() -> tuple[Published, ...]:
    """All rows, in the file's order."""
    table = json.loads(files("dfplan.benchmarks").joinpath("published.json").read_text(encoding="utf-8"))
    units, sources = table["units"], table["sources"]
    return tuple(
        Published(task, method, float(score), std, units[unit], sources[source], grade, suite, note)
        for task, method, score, std, unit, source, grade, suite, note in table["rows"]
    )


def reported(env_id: str) -> list[Published]:
    """The printed scores (not times) of one environment; empty where nobody has printed any."""
    return [row for row in published() if row.task == env_id and "seconds" not in row.unit]
