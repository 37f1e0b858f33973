"""Which weights the repository holds: a manifest beside them, which the wheel carries with a part of the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dfplan.agents.loading import MANIFEST, STABLE_BASELINES, kind_of, weights_in
from dfplan.benchmarks.protocol import score
from dfplan.benchmarks.provenance import file_hash
from dfplan.benchmarks.report.summaries import Summary
from dfplan.training.checkpoint import load_header
from dfplan.training.weights_file import card_beside

FOLDER = Path("agents", "pretrained")


def documents(root: Path, summary: Summary) -> dict[Path, str]:
    """The manifest's path and its text: of each name the file, its size and sha256, the command that made it, and the mean
    score of the recorded episodes that these very bytes have played, by environment and agent. Empty without weights.
    """
    files = weights_in(root / FOLDER)
    if not files:
        return {}
    episodes = [
        (cell.key.weights, cell.env_id, cell.agent, value)
        for cell in summary.cells
        for value in score(cell.reference, cell.returns, cell.success)[1]
    ]
    means = (
        pd.DataFrame(episodes, columns=["weights", "env", "agent", "score"]).groupby(["weights", "env", "agent"]).mean()
    )
    played: dict[str, dict[str, dict[str, float]]] = {}
    for (weights, env_id, agent), value in means["score"].items():
        played.setdefault(weights, {}).setdefault(env_id, {})[agent] = round(value, 1)
    found = {path.stem: _entry(path, played) for path in files}
    return {root / FOLDER / MANIFEST: json.dumps(found, indent=1, sort_keys=True) + "\n"}


def _entry(path: Path, played: Mapping[str, Any]) -> dict[str, Any]:
    sha256 = file_hash(path)
    card = card_beside(path) if kind_of(path) == STABLE_BASELINES else load_header(path).get("card", {})
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "command": card.get("command"),
        "scores": played.get(sha256, {}),
    }
