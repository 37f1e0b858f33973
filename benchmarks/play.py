"""Play what is wanted and not there yet, batch by batch, on worker processes; then time decisions, one agent at a time.

Batches are spread over processes with one thread each, which for small networks is faster than one process with several
threads. Each finished batch is on disk before the next is waited for. The functions of a `Wanted` up to `record` are
what worker processes call, on any machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dfplan.benchmarks import own, protocol, provenance, recording, results, rows, speed
from dfplan.benchmarks.protocol import BATCH, Episodes, batches, join
from dfplan.benchmarks.results import Cell, Timing, Unfinished
from dfplan.benchmarks.suites import suite
from dfplan.benchmarks.wanted import Wanted, key
from dfplan.command import progress
from dfplan.envs.registry import task
from dfplan.worker_processes import Workers

FAILURES = (ValueError, KeyError, OSError, RuntimeError)
"""What a job raises that fails, and what kills its processes."""
Say = Callable[[str], None]
"""Shows one sentence."""


@lru_cache(maxsize=4)
def build(wanted: Wanted) -> Any:
    """The agent, which stays built in its process. ValueError, KeyError or OSError where it cannot be built."""
    row, where = rows.row(wanted.agent), task(wanted.env_id)
    if row.own:
        own.listen()
    others = key(wanted.agent, where, wanted.training_seed).others(wanted.key)
    for kind in {"code", "weights"} & set(others):
        raise ValueError(
            f"a worker process found other {kind} of {wanted.agent!r} than this run began with: changed while it was "
            "going on, or different on another machine; start it again"
        )
    if wanted.device != "cpu":
        rows.require_device(wanted.device)
    own_class = row.own and row.path is None
    agent = own.make(row.agent, where) if own_class else row.build(where, wanted.device, wanted.training_seed)
    if row.own:
        own.require_fit(agent, wanted.env_id, f"the agent {wanted.agent!r}")
        own.require_decisions(agent, wanted.agent, wanted.env_id)
    return agent


def describe(wanted: Wanted) -> dict[str, Any]:
    """What a cell keeps of its agent: how it executes, its size, its configuration, the card of its weights, its files.

    ValueError, KeyError or OSError, with one sentence, for an agent that cannot be made, does not act as it should, or has
    what a result file cannot hold.
    """
    agent, row = build(wanted), rows.row(wanted.agent)
    settings: Any = getattr(agent, "config", None)
    found = {
        "about": row.about,
        "execution": getattr(agent, "execution", row.execution),
        "parameters": getattr(agent, "parameters", None),
        "config": asdict(settings) if is_dataclass(settings) else {},  # type: ignore[arg-type]
        "card": getattr(agent, "card", None) or None,
        "files": own.files() if wanted.own else {},
    }
    for name, kinds in (("execution", str), ("parameters", int | None), ("card", dict | None)):
        if not isinstance(found[name], kinds):
            raise ValueError(f"{name!r} of the agent {row.agent!r} is a {type(found[name]).__name__}; expected {kinds}")
    with own.blamed(f"'config' or 'card' of the agent {row.agent!r} is no plain data"):
        return dict(json.loads(json.dumps(found, allow_nan=False, default=str)))


def play_batch(wanted: Wanted, seeds: Sequence[int]) -> Episodes:
    """Play one batch with one thread. ValueError, with one sentence, if the agent fails."""
    agent = build(wanted)
    with own.blamed(f"the agent {wanted.agent!r} failed on {wanted.env_id}"):
        return protocol.play(agent, wanted.env_id, seeds)


def time_agent(wanted: Wanted) -> dict[str, Any]:
    """Time single decisions, with the threads that this process has: what of a `Timing` is measured, and `files`."""
    agent = build(wanted)
    with own.blamed(f"the agent {wanted.agent!r} failed on {wanted.env_id}"):
        measured = speed.time_decisions(agent, wanted.env_id, wanted.decisions, speed.SEED, speed.THREADS)
    return measured | {"files": own.files() if wanted.own else {}}


def record(wanted: Wanted) -> tuple[recording.Recorder, recording.Denoising | None]:
    """The paths of the first batch, and how the longest of its first plans came about, None for an agent that does not plan."""
    agent, recorder, seeds = build(wanted), recording.Recorder(), batches(wanted.seeds)[0]
    with own.blamed(f"the agent {wanted.agent!r} failed on {wanted.env_id}"):
        protocol.play(agent, wanted.env_id, seeds, recorder)
        longest = recorder.longest_plan
        return recorder, None if longest is None else recording.record_denoising(agent, wanted.env_id, seeds[longest])


def there(cells: Sequence[Wanted], folder: Path, say: Say = print, fresh: bool = False) -> dict[Wanted, Cell]:
    """Those of the cells that are there and used again, none if `fresh`; `say` is given why others are not.

    Raises ValueError where a file must not be replaced: it is of a newer schema, or has more episodes than are wanted.
    """
    found = {wanted: _usable(_path(folder, wanted), wanted, say, fresh) for wanted in cells}
    used = {wanted: cell for wanted, cell in found.items() if cell is not None}
    if used:
        say(f"{len(used)} of {len(cells)} results are there and used again; --fresh plays them anew")
    return used


def _path(folder: Path, wanted: Wanted) -> Path:
    return results.cell_path(folder, wanted.env_id, wanted.name, wanted.training_seed)


def _unfinished(cell: Path) -> Path:
    return cell.with_name(f".{cell.name}")


def _usable(path: Path, wanted: Wanted, say: Say, fresh: bool) -> Cell | None:
    cell = _read(path, Cell, say)
    if cell is None:
        return None
    episodes, asked = len(cell.seeds), len(wanted.seeds)
    reason = "" if fresh else wanted.changed(cell.key, cell.files)
    if reason is None and episodes < asked:
        reason = f"it has {episodes} of {asked} episodes"
    if reason is None and episodes == asked and _batches(path, wanted, say):
        reason = "an interrupted --fresh goes on"
    if reason is None:
        return cell
    if episodes > asked:
        would = f"{path} holds {episodes} episodes, which {asked} new ones would replace"
        raise ValueError(f"{would}: choose another --output, or --episodes {episodes}")
    if reason:
        say(f"{wanted} is played again: {reason}")
    return None


def _batches(cell: Path, wanted: Wanted, say: Say) -> dict[int, Episodes]:
    """The finished batches of a cell that is not whole yet, by their index, where nothing has changed since."""
    kept = _read(_unfinished(cell), Unfinished, say)
    if kept is None or wanted.changed(kept.key, kept.files):
        return {}
    index_of = {tuple(seeds): index for index, seeds in enumerate(batches(wanted.seeds))}
    return {index_of[one.seeds]: one for one in kept.batches if one.seeds in index_of}


def _read(path: Path, kind: type[results.File], say: Say) -> results.File | None:
    """What a file holds, None if there is none or it is damaged. ValueError for one of a newer schema."""
    try:
        return results.read(path, kind)
    except FileNotFoundError:
        return None
    except results.NewerSchemaError as error:
        raise ValueError(f"{error}: choose another --output") from error
    except (ValueError, OSError) as error:
        say(f"what is damaged is made again: {error}")
        return None


def play(
    pool: Workers,
    cells: Sequence[Wanted],
    folder: Path,
    command: str,
    say: Say = print,
    fresh: bool = False,
) -> dict[Wanted, Cell]:
    """Play cells into the tree in `folder`, going on from the batches that are kept there unless `fresh`.

    Every agent is built first, so that whatever is wrong with one is said before any episode is played. `command`: what
    the files say that they were made by. Raises what an agent's failure raises.
    """
    facts = dict(pool.ended({wanted: (describe, wanted) for wanted in cells}))
    hardware = pool.call("the question for the hardware", provenance.hardware) if cells else {}
    hardware |= {"cores": pool.count, "machines": pool.machines} if pool.machines > 1 else {}
    origin = {
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "command": command,
        "hardware": hardware,
    }
    paths = {wanted: _path(folder, wanted) for wanted in cells}
    parts = {wanted: {} if fresh else _batches(path, wanted, say) for wanted, path in paths.items()}
    done: dict[Wanted, Cell] = {}

    def keep(wanted: Wanted) -> None:
        unfinished, played = _unfinished(paths[wanted]), [part for _, part in sorted(parts[wanted].items())]
        if len(played) < len(batches(wanted.seeds)):
            results.write_file(unfinished, Unfinished(wanted.key, facts[wanted]["files"], played))
        else:
            done[wanted] = _cell(wanted, join(played), facts[wanted] | origin)
            results.write(folder, done[wanted])
            unfinished.unlink(missing_ok=True)

    todo = {}
    for wanted in cells:
        keep(wanted)
        for index, seeds in enumerate(batches(wanted.seeds)):
            if index not in parts[wanted]:
                todo[f"batch {index} of {wanted}"] = (wanted, index, seeds)
    jobs = {name: (play_batch, wanted, seeds) for name, (wanted, _, seeds) in todo.items()}
    ended = progress(pool.ended(jobs), "playing, in batches", len(jobs)) if jobs else ()
    for name, episodes in ended:
        wanted, index, _ = todo[name]
        parts[wanted][index] = episodes
        keep(wanted)
    return done


def _cell(wanted: Wanted, episodes: Episodes, facts: Mapping[str, Any]) -> Cell:
    where, curve = task(wanted.env_id), tuple(round(reward, 4) for reward in episodes.reward_curve)
    fixed: dict[str, Any] = {
        "episode_steps": where.max_episode_steps,
        "reference": suite.of(where).reference(where),
        "batch": BATCH,
    }
    counted = asdict(episodes) | {"reward_curve": curve, "seconds": round(episodes.seconds, 1)}
    return Cell(**wanted.about, **fixed, **counted, **facts)


def time_missing(
    pool: Workers, timings: Sequence[Wanted], folder: Path, say: Say = print, fresh: bool = False
) -> dict[Wanted, Timing]:
    """All timings, after measuring those that are not there, or all if `fresh`, one after another, nothing else running.

    An agent that fails, or kills its process, is said and not timed: what was played is worth its table without that. So is
    one whose timing was written by a newer dfplan, which is not replaced.
    """
    hardware, found = provenance.hardware(), dict[Wanted, Timing]()
    for wanted in timings:
        try:
            timing = _read(_path(folder, wanted).with_name("timing.json"), Timing, say)
            same = timing is not None and timing.hardware == hardware and timing.decisions >= wanted.decisions
            if fresh or timing is None or not same or wanted.changed(timing.key, timing.files):
                measured = pool.call(f"timing {wanted.name}", time_agent, wanted)
                timing = Timing(**wanted.about, hardware=hardware, commit=provenance.commit(), **measured)
                results.write(folder, timing)
            found[wanted] = timing
        except FAILURES as error:
            say(f"{wanted.name} on {wanted.env_id} is not timed: {error}")
    return found
