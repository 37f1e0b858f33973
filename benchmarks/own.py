"""A user's own agent: imported by name, made, compared with the environment, and tried before it plays.

Whatever goes wrong in a user's code becomes one sentence that says where. The files that it reads meanwhile are noted, from
imports to `numpy.load`: its results are void when one of them changes. Python reports every file that it opens
(`sys.addaudithook`); files that libraries open without Python, as h5py does, are not seen. Agents of one process share
what they read, as they share modules: a record may name too many files, never too few.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict

from dfplan.agents.episodes import goal_of, stacked
from dfplan.benchmarks import provenance
from dfplan.benchmarks.protocol import TUNING_SEEDS
from dfplan.benchmarks.suites import suite
from dfplan.envs.registry import Task, task

_PYTHON = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
_opened: set[str] = set()
"""Paths of files that this process has opened for reading since `listen`."""


def make(name: str, where: Task) -> Any:
    """The agent of a class or factory, which is called with the task if it takes an argument that has no default.

    Raises ValueError if it cannot be imported, fails, or makes something without `reset` and `act`.
    """
    _search_here()
    with blamed(f"cannot import the agent {name!r}"):
        factory = resolve_name(name)
    with blamed(f"the agent {name!r} could not be made"):
        parameters = inspect.signature(factory).parameters.values()
        needed = any(one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD for one in parameters)
        agent = factory(where) if needed else factory()
    lacks = [method for method in ("reset", "act") if not callable(getattr(agent, method, None))]
    if lacks:
        made = type(agent).__name__
        raise ValueError(f"{name!r} made a {made}, which is no agent: it has no {' and no '.join(lacks)}")
    return agent


def _search_here() -> None:
    """Let modules in the working directory be imported, as `python -m` does, but after all others.

    Not those in this file's folder, which Python puts first where one of its files is run as a command: they are known by
    their whole names, and a user's may have the same short ones.
    """
    ours, here = Path(__file__).resolve().parent, str(Path.cwd())
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != ours]
    if here not in sys.path:
        sys.path.append(here)


@contextmanager
def blamed(what: str) -> Iterator[None]:
    """Errors in somebody's code as one ValueError: 'WHAT: KeyError: ... (file.py, line 12)'."""
    try:
        yield
    except (Exception, SystemExit) as error:
        text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
        frames = traceback.extract_tb(error.__traceback__)
        file, line = frames[-1].filename, frames[-1].lineno
        if isinstance(error, SyntaxError) and error.filename:
            file, line = error.filename, error.lineno
        kind = type(error).__name__
        raise ValueError(
            f"{what}: {kind}{f': {text}' if text else ''} ({Path(file).name}, line {line or 1})"
        ) from error


def require_fit(agent: Any, env_id: str, name: str) -> None:
    """Compare the spaces that an agent learned in, if it names them, with those of an environment.

    Played in another space it would be scored in silence on something that it never learned: a model of actions from 0 to
    1 can only ever push one way. Actions must have the same shape and limits, observations the same shapes; observations
    that are a dictionary are compared with those of the goal-conditioned environment. Raises ValueError, with one
    sentence that calls the agent `name`, where they differ.
    """
    where, theirs = task(env_id), {part: getattr(agent, f"{part}_space", None) for part in ("action", "observation")}
    if not any(theirs.values()):
        return
    env = where.make(
        disable_env_checker=True, **(suite.of(where).with_goal if isinstance(theirs["observation"], Dict) else {})
    )
    env.close()
    for part, space in theirs.items():
        ours = getattr(env, f"{part}_space")
        if space is not None and _compared(space, part) != _compared(ours, part):
            raise ValueError(f"{name} does not fit {env_id}: its {part}s are {space}, and the environment's are {ours}")


def _compared(space: Any, part: str) -> Any:
    """What of a space must be equal."""
    if isinstance(space, Dict):
        return {key: _compared(inner, part) for key, inner in space.spaces.items()}
    limits = np.round([space.low, space.high], 6).tolist() if isinstance(space, Box) and part == "action" else []
    return (space.shape, limits) if isinstance(space, Box) else space


def require_decisions(agent: Any, name: str, env_id: str) -> None:
    """Ask for an action of one observation, as timing does, and for those of two, as playing does.

    ValueError, with one sentence, if the agent fails, or if its actions have another shape or are not finite.
    """
    env = task(env_id).make(disable_env_checker=True)
    observation, info = env.reset(seed=TUNING_SEEDS.start)
    goal, width = goal_of(observation, info), env.action_space.shape or ()
    env.close()
    for form, batch in (("one observation", ()), ("a batch of 2 observations", (2,))):
        shown, towards = (stacked([one] * 2) if batch and one is not None else one for one in (observation, goal))
        form = f"{form} {getattr(shown, 'shape', '')}".rstrip()
        with blamed(f"the agent {name!r} failed on {env_id} with {form}"):
            agent.reset(seed=TUNING_SEEDS.start, **({} if goal is None else {"goal": towards}))
            actions = np.asarray(agent.act(shown), dtype=float)
        if actions.shape != (*batch, *width) or not np.isfinite(actions).all():
            said = f"actions {actions.shape}" if np.isfinite(actions).all() else "NaN or infinity"
            expected = f"expected finite actions of the shape {(*batch, *width)}"
            raise ValueError(f"the agent {name!r} answers {form} with {said}; {expected}")


@cache
def listen() -> None:
    """From now on note which files this process reads."""
    sys.addaudithook(_note)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        flags = arguments[2]
        if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_CREAT | os.O_TRUNC)):
            _opened.add(os.path.abspath(os.fsdecode(arguments[0])))


def files() -> dict[str, str]:
    """sha256 of each file that was read and is there, but for Python's, installed packages' and dfplan's own code.

    Paths below the working directory are relative to it.
    """
    here = str(Path.cwd()) + os.sep
    paths = sorted(path for path in map(_source, list(_opened)) if path.is_file() and _counts(path))
    return {str(path).removeprefix(here): digest for path in paths if (digest := _hash(path)) is not None}


def changed(known: Mapping[str, str]) -> list[str]:
    """Those of the paths that are not, or no longer, files of these hashes."""
    return [path for path, digest in known.items() if _hash(Path(path)) != digest]


def _hash(path: Path) -> str | None:
    with suppress(OSError, ValueError):
        return provenance.file_hash(path)
    return None


def _source(path: str) -> Path:
    """The source of a compiled module, any other path as it is."""
    if path.endswith(".pyc"):
        with suppress(ValueError):
            path = importlib.util.source_from_cache(path)
    return Path(path)


def _counts(path: Path) -> bool:
    """Not installed packages, whose versions are recorded instead."""
    ours = path.suffix == ".py" and any(path.is_relative_to(folder) for folder in provenance.folders())
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    python = any(path.resolve().is_relative_to(folder) for folder in _PYTHON)
    return not (ours or installed or python or str(path).startswith(("/proc/", "/sys/", "/dev/")))
