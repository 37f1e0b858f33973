"""A user's own agent: imported by name, made, compared with the environment, and tried before it plays.

Whatever goes wrong in a user's code becomes one sentence that says where.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict

from dfplan.agents.episodes import goal_of, stacked
from dfplan.benchmarks.protocol import TUNING_SEEDS
from dfplan.benchmarks.recording import planned_path
from dfplan.benchmarks.suites import suite
from dfplan.envs.registry import Task, task

TRIED = 2
"""Observations in the batch that an agent is tried with."""


def search_here() -> None:
    """Let modules in the working directory be imported, as `python -m` does, but after all others.

    Not those in this file's folder, which Python puts first where one of its files is run as a command: they are known by
    their whole names, and a user's may have the same short ones.
    """
    ours, here = Path(__file__).resolve().parent, str(Path.cwd())
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != ours]
    if here not in sys.path:
        sys.path.append(here)


def make(name: str, where: Task) -> Any:
    """The agent of a class or factory, which is called with the task if it takes an argument that has no default.

    Raises ValueError if it cannot be imported, takes more, fails, or makes something without `reset` and `act`.
    """
    search_here()
    try:
        factory = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot import the agent {name!r} ({error}); expected 'package.module:Class'") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"cannot import the agent {name!r}: {blame(error)}") from error
    arguments = [where] if _takes_task(factory, name) else []
    try:
        agent = factory(*arguments)
    except (Exception, SystemExit) as error:
        raise ValueError(f"the agent {name!r} could not be made: {blame(error)}") from error
    lacks = [method for method in ("reset", "act") if not callable(getattr(agent, method, None))]
    if lacks:
        made = type(agent).__name__
        raise ValueError(f"{name!r} made a {made}, which is no agent: it has no {' and no '.join(lacks)}")
    return agent


def _takes_task(factory: Callable[..., Any], name: str) -> bool:
    if not callable(factory):
        raise ValueError(f"the agent {name!r} is a {type(factory).__name__}; expected a class or a function")
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # some built-in types have no signature
        return False
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p for p in parameters if p.default is p.empty and p.kind not in variable]
    if len(needed) > 1 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        names = ", ".join(p.name for p in needed)
        raise ValueError(f"the agent {name!r} asks for {names}; expected one argument, the task, or none")
    return bool(needed)


def blame(error: BaseException) -> str:
    """An error in somebody's code as 'KeyError: ... (file.py, line 12)', on one line."""
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    frames = traceback.extract_tb(error.__traceback__)
    file, line = (frames[-1].filename, frames[-1].lineno) if frames else (None, None)
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
    where = f" ({Path(file).name}, line {line or 1})" if file else ""
    return f"{type(error).__name__}{f': {text}' if text else ''}{where}"


def require_fit(agent: Any, env_id: str, name: str) -> None:
    """Compare the spaces that an agent learned in, if it names them, with those of an environment.

    Played in another space it would be scored in silence on something that it never learned: a model of actions from 0 to
    1 can only ever push one way. Actions must have the same shape and limits, observations the same shapes; observations
    that are a dictionary are compared with those of the goal-conditioned environment. Raises ValueError, with one
    sentence that calls the agent `name`, where they differ.
    """
    theirs = {part: getattr(agent, f"{part}_space", None) for part in ("action", "observation")}
    if not any(theirs.values()):
        return
    where = task(env_id)
    conditioned = suite.of(where).with_goal if isinstance(theirs["observation"], Dict) else {}
    env = where.make(disable_env_checker=True, **conditioned)
    ours = {"action": env.action_space, "observation": env.observation_space}
    env.close()
    for part, space in theirs.items():
        there, here = _described(space, part), _described(ours[part], part)
        if space is not None and there != here:
            raise ValueError(f"{name} does not fit {env_id}: its {part}s are {there}, and the environment's are {here}")


def _described(space: Any, part: str) -> str:
    """What of a space must be equal, in words: 'arrays of shape (2,) from [-1. -1.] to [1. 1.]'."""
    if isinstance(space, Dict):
        parts = (f"{key} ({_described(inner, part)})" for key, inner in sorted(space.spaces.items()))
        return f"a dictionary of {', '.join(parts)}"
    if not isinstance(space, Box):
        return repr(space)
    limits = f" from {np.round(space.low, 6)} to {np.round(space.high, 6)}" if part == "action" else ""
    return f"arrays of shape {space.shape}{limits}"


def require_decisions(agent: Any, name: str, env_id: str) -> None:
    """Ask for an action of one observation, as timing does, and for those of a batch, as playing does.

    ValueError, with one sentence, if the agent fails, or if its actions have another shape or are not finite.
    """
    env = task(env_id).make(disable_env_checker=True)
    observation, info = env.reset(seed=TUNING_SEEDS.start)
    width, goal = env.action_space.shape or (), goal_of(observation, info)
    env.close()
    for rows in ((), (TRIED,)):
        shown, towards = (stacked([one] * TRIED) if rows else one for one in (observation, goal))
        shape = "" if isinstance(shown, Mapping | tuple) else f" {shown.shape}"
        form = f"a batch of {TRIED} observations{shape}" if rows else f"one observation{shape}"
        try:
            agent.reset(seed=TUNING_SEEDS.start, **({} if goal is None else {"goal": towards}))
            actions = agent.act(shown)
            if rows:
                planned_path(agent, 0)
        except (Exception, SystemExit) as error:
            raise ValueError(f"the agent {name!r} failed on {env_id} with {form}: {blame(error)}") from error
        expected = (*rows, *width)
        if np.shape(actions) != expected:
            said = f"the agent {name!r} answers {form} with actions {np.shape(actions)}"
            raise ValueError(f"{said}; expected the shape {expected}")
        if not np.isfinite(np.asarray(actions, dtype=float)).all():
            raise ValueError(f"the agent {name!r} answers {form} with NaN or infinity")
