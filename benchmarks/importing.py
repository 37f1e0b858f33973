"""Agents by name: 'package.module:attribute' to the object, and from a class or factory to an agent.

Whatever goes wrong in a user's own code becomes one sentence that says where.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dfplan.envs.registry import Task


def imported(name: str) -> Any:
    """What 'package.module:attribute' names; the working directory is searched too. ValueError if it cannot be had."""
    module, _, attribute = name.partition(":")
    search_here()
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot import the agent {name!r} ({error}); expected 'package.module:Class'") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"cannot import the agent {name!r}: {blame(error)}") from error


def search_here() -> None:
    """Let modules in the working directory be imported, as `python -m` does, but after all others."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def made(name: str, task: Task) -> Any:
    """The agent of a class or factory, which is called with the task if it takes an argument that has no default.

    Raises ValueError if it takes more, fails, or makes something without `reset` and `act`.
    """
    factory = imported(name)
    arguments = [task] if _takes_task(factory, name) else []
    try:
        agent = factory(*arguments)
    except (Exception, SystemExit) as error:
        raise ValueError(f"the agent {name!r} could not be made: {blame(error)}") from error
    lacks = [method for method in ("reset", "act") if not callable(getattr(agent, method, None))]
    if lacks:
        raise ValueError(
            f"{name!r} made a {type(agent).__name__}, which is no agent: it has no {' and no '.join(lacks)}"
        )
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
    if isinstance(error, SyntaxError):  # which says itself where it is
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{f': {text}' if text else ''}{where}"
