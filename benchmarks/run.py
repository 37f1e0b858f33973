"""Evaluate planning agents on a maze and write the table, the result and the pictures.

    python benchmarks/run.py --env maze2d-large

Plays the same episodes with every agent, shows the table, and writes into the output folder: result.json, table.md,
table.csv, paths.png (executed paths over plans) and denoising.gif (a plan being denoised).
"""

from __future__ import annotations

import os

# Idle OpenMP threads that spin slow a small network down many times on a machine with few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import dataclasses
import subprocess
import sys
import tempfile
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from dfplan.benchmarks import registry, results, workers
from dfplan.benchmarks.evaluation import Measured, Played, Pool, measure
from dfplan.benchmarks.protocol import BATCH, evaluation_seeds
from dfplan.envs.reference import reference
from dfplan.envs.tasks import Task, find

FILES = ("result.json", "table.md", "table.csv", "paths.png", "denoising.gif")
"""What a run writes; the last one only if an agent plans."""
_QUICK_EPISODES, _EPISODES = 10, 100
_QUICK_DECISIONS, _DECISIONS = 100, 300


@dataclass(frozen=True)
class Arguments:
    env: str = "maze2d-large"
    """Environment, with or without its version."""
    agents: tuple[str, ...] = tuple(registry.ROWS)
    """Rows of the table: registered names, or package.module:factory for your own agent."""
    episodes: int | None = None
    """Episodes of each agent; without it 100, or 10 with --quick."""
    seed: int = 0
    """Which block of evaluation episodes to play."""
    device: str = "cpu"
    """Where agents compute: cpu or cuda."""
    train: bool = False
    """Train missing weights first (collecting the data if it is missing), which takes long."""
    quick: bool = False
    """A look within 90 seconds: 10 episodes, fewer timed decisions."""
    output: Path | None = None
    """Folder for the files; without it results/ENV."""
    threads: int = min(2, os.cpu_count() or 1)
    """CPU threads in all: processes that play episodes, and torch's threads while decisions are timed."""


@dataclass(frozen=True)
class Settings:
    """Checked arguments."""

    task: Task
    agents: tuple[str, ...]
    seeds: range
    device: str
    decisions: int
    output: Path
    threads: int
    quick: bool


def check(arguments: Arguments) -> Settings:
    """Raises ValueError or KeyError, with one sentence, for what cannot be run."""
    task = find(arguments.env)
    reference(task.env_id)
    for name in arguments.agents:
        registry.row(name)
    if not arguments.agents or len(set(arguments.agents)) < len(arguments.agents):
        raise ValueError(f"expected one or more different agents, not {' '.join(arguments.agents) or 'none'}")
    if arguments.threads < 1:
        raise ValueError(f"threads must be at least 1, not {arguments.threads}")
    episodes = arguments.episodes
    if episodes is None:
        episodes = _QUICK_EPISODES if arguments.quick else _EPISODES
    output = arguments.output or Path("results") / task.env_id.rsplit("-v", 1)[0]
    _check_output(output)
    return Settings(
        task=task,
        agents=arguments.agents,
        seeds=evaluation_seeds(episodes, arguments.seed),
        device=arguments.device,
        decisions=_QUICK_DECISIONS if arguments.quick else _DECISIONS,
        output=output,
        threads=arguments.threads,
        quick=arguments.quick,
    )


def _check_output(output: Path) -> None:
    """Say now, not after minutes of playing, that nothing can be written there."""
    existing = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"cannot write into the output folder {output}: {existing} is a file")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"cannot write into the output folder {output}: no permission to write in {existing}")


def prepare(pool: Pool, settings: Settings, train: bool, console: Console) -> dict[str, dict[str, Any]]:
    """Build every agent once and describe it, training what is missing if that was asked for.

    So that whatever is wrong with an agent is said before any episode is played.
    """

    def describe(name: str) -> dict[str, Any]:
        with console.status(f"loading {name}"):
            return pool.run(workers.describe, name, settings.task.env_id, settings.device)

    if settings.device != "cpu":
        pool.run(workers.check_device, settings.device)
    descriptions = {}
    for name in settings.agents:
        try:
            descriptions[name] = describe(name)
        except registry.MissingWeightsError as missing:
            if not train:
                raise
            command = [sys.executable, "-m", "dfplan.benchmarks.train", *missing.command]
            if subprocess.run(command, check=False).returncode != 0:
                raise ValueError(f"training the weights {missing.weights!r} failed") from missing
            descriptions[name] = describe(name)
    return descriptions


def to_result(settings: Settings, measured: Measured, seconds: float) -> results.Result:
    task = settings.task
    entry = reference(task.env_id)
    return results.Result(
        env_id=task.env_id,
        episode_steps=task.max_episode_steps,
        reference={"min": entry.min_return, "max": entry.max_return},
        seeds=list(settings.seeds),
        batch=BATCH,
        quick=settings.quick,
        device=settings.device,
        agents=[_agent_result(played) for played in measured.agents],
        command=" ".join(["python benchmarks/run.py", *sys.argv[1:]]),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        peak_memory_mib=round(measured.peak_mib + workers.peak_memory_mib(), 1),
        commit=results.commit(),
        versions=results.versions(),
        hardware=results.hardware() | {"threads": settings.threads},
    )


def _agent_result(played: Played) -> results.AgentResult:
    return results.AgentResult(
        agent=played.agent,
        returns=list(played.episodes.returns),
        success=list(played.episodes.success),
        first_reach=list(played.episodes.first_reach),
        decision=dataclasses.asdict(played.decision),
        seconds=round(played.episodes.seconds, 1),
        **played.description,
    )


def write(settings: Settings, result: results.Result, measured: Measured) -> list[str]:
    """Write all files into a folder beside the output, then move them in; returns their names."""
    from dfplan.benchmarks import pictures, report

    settings.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.output.parent, prefix=f".{settings.output.name}.") as temporary:
        folder = Path(temporary)
        (folder / "result.json").write_text(result.to_json(), encoding="utf-8")
        (folder / "table.md").write_text(report.to_markdown(result), encoding="utf-8")
        (folder / "table.csv").write_text(report.to_csv(result), encoding="utf-8")
        layout = settings.task.layout
        pictures.draw_paths(folder / "paths.png", layout, {p.agent: p.episodes for p in measured.agents})
        if measured.denoising is not None:
            pictures.animate(folder / "denoising.gif", layout, measured.denoising)
        names = [name for name in FILES if (folder / name).exists()]
        settings.output.mkdir(exist_ok=True)
        for name in FILES:
            if name in names:
                os.replace(folder / name, settings.output / name)
            else:
                (settings.output / name).unlink(missing_ok=True)  # of an earlier run
    return names


def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    console = Console(width=None if sys.stdout.isatty() else 130)
    began = time.perf_counter()
    try:
        settings = check(arguments)
        with Pool(settings.threads) as pool:
            descriptions = prepare(pool, settings, arguments.train, console)
            measured = measure(
                pool, settings.task, descriptions, settings.seeds, settings.device, settings.decisions, settings.threads
            )
        result = to_result(settings, measured, time.perf_counter() - began)
        from dfplan.benchmarks import report

        console.print(report.to_rich(result))
        names = write(settings, result, measured)
    except (ValueError, KeyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenProcessPool:
        print("error: a worker process died (not enough memory?); nothing was written", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)
        return 130
    console.print(f"{time.perf_counter() - began:.0f} s; wrote {', '.join(names)} to {settings.output}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
