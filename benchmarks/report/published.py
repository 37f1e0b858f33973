"""Scores that others have printed, with their unit and source: `published.json` as a data frame.

They were not measured here. A table shows them in a column of their own, 'reported', never beside a measured score as
if the two were alike: units, episode lengths, data, networks and controllers differ between papers. A difference to one is a
question, not an error of either side.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import pandas as pd

from dfplan.benchmarks.rows import ROWS

TOLERANCE_POINTS, TOLERANCE_SHARE = 15.0, 0.15
"""A measured score agrees with a printed one if it differs by at most the larger of the two: points, or that share."""


@cache
def published() -> pd.DataFrame:
    """All rows, in the file's order.

    Columns: `env` (its id), `method`, `score`, `std` (as printed after the plus-minus sign, missing if nothing was), `unit`
    (in words; 'as printed' where the paper leaves it open), `source`, `grade` (A authors' own repository, B the paper's text
    as stored by a third party, C a secondary table), `suite`, `note`; and for tables `text` ('159 ± 2.7') and `short_unit`
    (without its reservations: 'normalized', 'as printed').
    """
    table = json.loads(files("dfplan.benchmarks.report").joinpath("published.json").read_text(encoding="utf-8"))
    names = ["env", "method", "score", "std", "unit", "source", "grade", "suite", "note"]
    rows = pd.DataFrame(table["rows"], columns=names).astype({"score": float})
    rows["unit"] = [table["units"][place] for place in rows["unit"]]
    rows["source"] = [table["sources"][place] for place in rows["source"]]
    rows["text"] = [
        f"{score:g}" + ("" if pd.isna(std) else f" ± {std:g}")
        for score, std in zip(rows["score"], rows["std"], strict=True)
    ]
    rows["short_unit"] = rows["unit"].str.extract(r"^(?:D4RL-)?(.*?)(?: x100)?(?:;|,| \(|$)")[0]
    return rows


@cache
def reported(env_id: str) -> pd.DataFrame:
    """The printed scores (not times) of one environment; empty where nobody has printed any."""
    rows = published()
    return rows[(rows["env"] == env_id) & ~rows["unit"].str.contains("seconds")]


def printed_for(agent: str, env_id: str) -> pd.DataFrame:
    """The printed scores of a row's own algorithm on an environment; empty where there are none."""
    rows = reported(env_id)
    return rows[rows["method"].isin(ROWS[agent].printed if agent in ROWS else ())]


def agrees(measured: float, printed: float) -> bool:
    """Whether a measured score differs from a printed one by no more than the tolerance."""
    return abs(measured - printed) <= max(TOLERANCE_POINTS, TOLERANCE_SHARE * abs(printed))
