"""Run an experiment: `python benchmarks/experiment.py speed-and-arrival`.

An experiment plays episodes for one claim and writes one JSON file, with the raw returns and whether the claim held. After
Ctrl-C or a kill the same command goes on; a finished file is used again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import tyro

from dfplan import command
from dfplan.benchmarks import provenance
from dfplan.benchmarks.report.pages import replaced
from dfplan.locks import hold
from dfplan.whole_files import write_whole

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Arguments:
    """The command line."""

    name: tyro.conf.Positional[
        Literal[
            "speed-and-arrival",
            "teleport",
            "monte-carlo-guidance",
            "futures",
            "asking-for-goals",
            "asking-for-returns",
            "zig-zag",
            "noisy-observations",
            "memory-swap",
            "corrupted-frames",
            "latent-memory",
            "variable-horizon",
            "bound",
            "long-rollout",
            "composition",
            "constraints",
            "search",
            "stitching",
            "paper-recipe",
            "fresh-starts",
            "decision-time",
        ]
    ]
    """What is played: see benchmarks/experiments/, one file each, and docs/claims.md."""
    quick: bool = False
    """A first look: a few episodes of each part, in a file of their own."""
    record: bool = False
    """Write into benchmarks/recorded/experiments, and the table and the plot into docs/, instead of into results/."""


@command.with_arguments(
    Arguments, __doc__, interrupted="finished parts are kept, and the same command goes on from there"
)
def main(arguments: Arguments) -> None:
    """Run an experiment, or go on with it, and write its file and its table."""
    name, quick, record = arguments.name, arguments.quick, arguments.record
    if record and (quick or not (ROOT / "docs").is_dir()):
        raise ValueError("--record is for whole experiments in a checkout of dfplan: expected no --quick, and docs/")
    experiment = import_module(f"dfplan.benchmarks.experiments.{name.replace('-', '_')}")
    folder = ROOT / "benchmarks" / "recorded" / "experiments" if record else Path("results") / "experiments"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}{'-quick' * quick}.json"
    words = f"python benchmarks/experiment.py {name}{' --quick' * quick}{' --record' * record}"
    with hold(folder / f".{file.name}.lock", f"playing {name}", wait=True):
        result = complete(experiment, file, words, quick)
        shown = section(experiment, result)
        if hasattr(experiment, "figure"):
            from dfplan.benchmarks.report import figures  # late: --help needs no matplotlib

            plot = (ROOT / "docs" if record else folder) / f"{file.stem}.png"
            figures.save(plot, experiment.figure(result["parts"]), digest(result))
        if record:
            page = ROOT / "docs" / f"{experiment.PAGE}.md"
            write_whole(page, replaced(page.read_text(encoding="utf-8"), shown, page.name, f"experiment:{name}"))
    print(f"\n{shown}\n{file}")


def complete(experiment: Any, file: Path, words: str, quick: bool) -> dict[str, Any]:
    """Play what the result file lacks, on one thread, and return it whole.

    A finished file with the same settings is returned as it is. Each finished part is kept in NAME.partial.json, and used
    again at the same commit, with the same versions and settings.
    """
    import torch  # late: --help needs no torch

    torch.set_num_threads(1)
    wanted, partial = experiment.parts(quick), file.with_suffix(".partial.json")
    done, kept = read(file), read(partial)
    if {part: entry["settings"] for part, entry in done["parts"].items()} == wanted:
        return done
    result = {"claim": experiment.CLAIM, "command": words, "commit": provenance.commit()}
    result |= {"versions": provenance.versions(), "hardware": provenance.hardware(), "parts": {}}
    same = all(kept[key] == value for key, value in result.items() if key in kept and key != "parts")
    for part, settings in wanted.items():
        entry = kept["parts"].get(part, {}) if same else {}
        if entry.get("settings") != settings:
            print(f"playing {part}", flush=True)
            entry = {"settings": settings, **experiment.play(settings)}
        result["parts"][part] = entry
        write_whole(partial, json.dumps(result, indent=1) + "\n")
    result = {
        "held": experiment.conclude(result["parts"])[0],
        **result,
        "created": datetime.now(UTC).isoformat("T", "seconds"),
    }
    write_whole(file, json.dumps(result, indent=1) + "\n")
    partial.unlink()
    return result


def read(file: Path) -> dict[str, Any]:
    """A result file, without parts where there is none. ValueError for a file that is damaged."""
    try:
        return {"parts": {}, **json.loads(file.read_text(encoding="utf-8"))} if file.is_file() else {"parts": {}}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is damaged: remove it, and start again") from error


def digest(result: dict[str, Any]) -> str:
    """Of what a result file's plot is drawn from."""
    return hashlib.sha256(json.dumps(result["parts"], sort_keys=True).encode()).hexdigest()


def section(experiment: Any, result: dict[str, Any]) -> str:
    """What the page shows of a result file: the table, the claim, whether it held, and where the numbers come from."""
    held, table = experiment.conclude(result["parts"])
    source = f"`{result['command']}`, commit {str(result['commit'])[:8]}"
    return f"{table}\nClaim: *{result['claim']}* It {'held' if held else 'did not hold'}. Made by {source}.\n"


if __name__ == "__main__":
    sys.exit(main())
