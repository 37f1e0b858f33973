"""What worker processes call: functions of names and plain data, so that a process on any machine can be given its work."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from dfplan.benchmarks import own, protocol, reading, recording, rows, speed
from dfplan.benchmarks.wanted import Wanted, key
from dfplan.envs.registry import task


@lru_cache(maxsize=4)
def build(wanted: Wanted) -> Any:
    """The agent, which stays built in its process. ValueError, KeyError or OSError where it cannot be built."""
    row, where = rows.row(wanted.agent), task(wanted.env_id)
    if row.own:
        reading.listen()
    ours = key(wanted.agent, where, wanted.training_seed) if wanted.key else {}
    for kind in ("code", "weights"):
        if ours.get(kind) != wanted.key.get(kind):
            raise ValueError(
                f"a worker process found other {kind} of {wanted.agent!r} than this run began with: changed while it was "
                "going on, or different on another machine; start it again"
            )
    if wanted.device != "cpu":
        rows.require_device(wanted.device)
    if not row.own:
        return row.build(where, wanted.device, wanted.training_seed)
    agent = own.make(row.agent, where) if row.path is None else row.build(where, wanted.device)
    own.require_fit(agent, wanted.env_id, f"the agent {wanted.agent!r}")
    return agent


def describe(wanted: Wanted) -> dict[str, Any]:
    """What a cell keeps of its agent: how it executes, its size, its configuration, the card of its weights, its files.

    A user's own agent is tried before. ValueError, KeyError or OSError, with one sentence, for an agent that cannot be
    made, does not act as it should, or has what a result file cannot hold.
    """
    agent, row = _tried(wanted), rows.row(wanted.agent)
    settings = getattr(agent, "config", None)
    found = {
        "execution": getattr(agent, "execution", row.execution),
        "parameters": getattr(agent, "parameters", None),
        "config": dataclasses.asdict(settings) if dataclasses.is_dataclass(settings) else {},  # type: ignore[arg-type]
        "card": getattr(agent, "card", None) or None,
    }
    for name, kinds in (("execution", str), ("parameters", int | None), ("card", dict | None)):
        if not isinstance(found[name], kinds):
            raise ValueError(f"{name!r} of the agent {row.agent!r} is a {type(found[name]).__name__}; expected {kinds}")
    try:
        plain = json.loads(json.dumps(found, allow_nan=False, default=str))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"'config' or 'card' of the agent {row.agent!r} is no plain data: {error}") from error
    return plain | {"about": row.about, "files": _files(wanted)}


def play_batch(wanted: Wanted, seeds: Sequence[int]) -> protocol.Episodes:
    """Play one batch with one thread. ValueError, with one sentence, if the agent fails."""
    agent = build(wanted)
    with _blamed(wanted):
        return protocol.play(agent, wanted.env_id, seeds)


def record_paths(wanted: Wanted, seeds: Sequence[int]) -> recording.Paths:
    """The paths of one batch. ValueError, with one sentence, if the agent fails."""
    agent, recorder = build(wanted), recording.Recorder()
    with _blamed(wanted):
        protocol.play(agent, wanted.env_id, seeds, recorder)
    return recorder.paths()


def time_agent(wanted: Wanted) -> dict[str, Any]:
    """Time single decisions, with the threads that this process has: what of a `Timing` is measured, and `files`.

    ValueError, with one sentence, if the agent fails.
    """
    agent = _tried(wanted)
    with _blamed(wanted):
        measured = speed.time_decisions(agent, wanted.env_id, wanted.decisions, speed.SEED, speed.THREADS)
    return measured | {"files": _files(wanted)}


def record_plan(wanted: Wanted, seed: int) -> recording.Denoising | None:
    """How one plan came about, from a reset with this seed; None for an agent that does not plan. ValueError if it fails."""
    agent = build(wanted)
    with _blamed(wanted, "did not record a plan"):
        return recording.record_denoising(agent, wanted.env_id, seed)


def _tried(wanted: Wanted) -> Any:
    agent = build(wanted)
    if wanted.own:
        own.require_decisions(agent, wanted.agent, wanted.env_id)
    return agent


def _files(wanted: Wanted) -> dict[str, str]:
    return reading.files() if wanted.own else {}


@contextmanager
def _blamed(wanted: Wanted, failed: str | None = None) -> Iterator[None]:
    """Errors of the agent as a ValueError that names it and the line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        what = failed or f"failed on {wanted.env_id}"
        raise ValueError(f"the agent {wanted.agent!r} {what}: {own.blame(error)}") from error
