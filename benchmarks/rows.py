"""The rows of the table, from `rows.toml`: from a row's name to the agent that plays it.

A trained baseline joins by one entry there, which holds all that is said of it: its class, the recipe whose weights it
loads, its page, its family. A user's own agent needs none: `package.module:Class` names a class or a factory, `sb3:PATH` a
file of stable-baselines3, and `sb3-trust-pickle:PATH` one whose pickles, which may run any code, its user trusts. Agents
are imported when they are built, so that torch is loaded by the processes that need it only.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from dfplan.data.spec import Spec
from dfplan.envs.registry import Task, short_name
from dfplan.names import unknown

TRAINING_SEEDS = (0, 1, 2)
"""Of the agents that are trained: a recorded row has all of them."""
FILES = ("sb3", "sb3-trust-pickle")
"""Prefixes of a model file of stable-baselines3 that is named by its path."""


class MissingWeightsError(ValueError):
    """A row's weights are not there; the message names the command that trains them."""


@dataclass(frozen=True)
class Row:
    """One row of the table: how its agent is made, and all that is said of it."""

    agent: str
    """'module:attribute' of a trained agent's class, which has `load`, or of what makes an agent that is not trained."""
    about: str
    """One sentence under the table."""
    recipe: str | None = None
    """Name in `dfplan.benchmarks.recipes` of what it was trained by, None for an agent that is not trained."""
    page: str | None = None
    """Name of its algorithm's page, docs/PAGE.md."""
    printed: Sequence[str] = ()
    """Names in published.json of the methods that are the same algorithm."""
    family: str = ""
    """Its color's name in the legends; '' for what is no learned agent."""
    headline: bool = False
    """Whether it stands in the README's table, of eight rows at most."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Changes to what the weights' header says: arguments of the agent's `with_options`."""
    stacked: int = 1
    """Training seeds that one weights file holds, for `load(path, member)`."""
    single_goal: bool | Sequence[str] = False
    """Whether it is not given the goal, which is in what it has learned; or the names of the suites where that is so."""
    suites: Sequence[str] = ()
    """Names of the suites that it is made for; all of them if there is none."""
    execution: str = ""
    """What turns its plans or states into actions, where the agent does not say so itself."""
    prepare: str | None = None
    """'module:function' that gives a loaded agent what of a task it needs beyond its weights: `(agent, task) -> agent`."""
    path: Path | None = None
    """A weights file that was named, instead of the training seeds of a recipe."""
    trust_pickle: bool = False
    """Whether the pickles of that file may run their code."""
    own: bool = False
    """Whether it is a user's own agent: a class, a factory or a file that was named."""

    def weights_name(self, task: Task) -> str:
        """'maze2d-large', 'maze2d-large-iql': one name for each set of data and recipe."""
        return of_data(short_name(task.data_id), str(self.recipe))

    def weights_file(self, task: Task, seed: int | None) -> Path | None:
        """Where the weights of a training seed are, None where there are none."""
        if self.recipe is None or seed is None:
            return self.path
        return weights_file(self.weights_name(task), seed - seed % self.stacked)

    def lacking(self, task: Task, wanted: Sequence[int] | None = None) -> list[list[str]]:
        """Arguments of `python benchmarks/train.py`, for the weights that are not there of each wanted training seed.

        Without wanted ones, for those of the first training seed if there are none. ValueError for a task without recipes.
        """
        seeds = TRAINING_SEEDS if wanted is None else wanted
        lacking = [] if self.recipe is None else [seed for seed in seeds if self.weights_file(task, seed) is None]
        if wanted is None:
            lacking = lacking[:1] if len(lacking) == len(seeds) else []
        if lacking:
            require_recipes(task)
        recipe = [] if self.recipe == "default" else ["--recipe", str(self.recipe)]
        numbers = [["--seed", str(seed)] if seed and self.stacked == 1 else [] for seed in lacking]
        return [["--env", short_name(task.data_id), *recipe, *number] for number in numbers]

    def training_seeds(self, task: Task, wanted: Sequence[int] | None = None) -> tuple[int | None, ...]:
        """The wanted training seeds, or all of `TRAINING_SEEDS` that have weights; (None,) if it is not trained.

        Raises MissingWeightsError if there are no weights, or none of a wanted seed, and ValueError for a task that it cannot
        play, or that has no recipes.
        """
        if refusal := self.refusal(task):
            raise ValueError(refusal)
        for words in self.lacking(task, wanted):
            train = " ".join(["python benchmarks/train.py", *words])
            raise MissingWeightsError(f"its weights are not there: train them with `{train}`, or pass --train")
        seeds = (seed for seed in TRAINING_SEEDS if self.weights_file(task, seed) is not None)
        return (None,) if self.recipe is None else tuple(seeds if wanted is None else wanted)

    def refusal(self, task: Task) -> str | None:
        """Why it cannot play a task, None if it can."""
        if self.suites and task.suite not in self.suites:
            return f"it is made for {' and '.join(self.suites)} only"
        untold = self.single_goal if isinstance(self.single_goal, bool) else task.suite in self.single_goal
        if untold and task.random_goal:
            return f"it is not told the goal, and {task.env_id} has a new one in each episode"
        return None

    def build(self, task: Task, device: str = "cpu", seed: int | None = None) -> Any:
        """The agent of a training seed. ValueError, with one sentence, where it cannot be built."""
        if self.recipe is None and self.path is None:
            return resolve_name(self.agent)(task)
        suite_of(task)  # it registers the features that weights name
        self.training_seeds(task, None if seed is None else (seed,))
        member = (seed,) if self.stacked > 1 else ()
        trusted = {"trust_pickle": True} if self.trust_pickle else {}
        agent = self.prepared(resolve_name(self.agent).load(self.weights_file(task, seed), *member, **trusted), task)
        if device != "cpu" and self.recipe is not None:
            if not hasattr(agent, "to"):
                raise ValueError(f"{type(agent).__name__} computes on the CPU only: expected --device cpu")
            agent = agent.to(device)
        return agent.with_options(**self.options) if self.options else agent

    def prepared(self, agent: Any, task: Task) -> Any:
        """A loaded agent with what of a task it needs beyond its weights."""
        return agent if self.prepare is None else resolve_name(self.prepare)(agent, task)


_families = tomllib.loads(files("dfplan.benchmarks").joinpath("rows.toml").read_text(encoding="utf-8"))["families"]
ROWS: dict[str, Row] = {
    name: Row(
        family=family["name"], **{key: value for key, value in family.items() if key not in ("name", "rows")} | own
    )
    for family in _families
    for name, own in family["rows"].items()
}
"""In the order of the tables."""
FAMILIES = tuple(family["name"] for family in _families if family["name"])
"""Rows that share a color, in the order of the legend."""


def row(name: str) -> Row:
    """The row of a name, of `module:Class`, or of a file, `sb3:PATH` or `sb3-trust-pickle:PATH`.

    Raises KeyError for an unknown name, FileNotFoundError for a missing file. What else is named is not looked for yet.
    """
    if name in ROWS:
        return ROWS[name]
    kind, colon, rest = name.partition(":")
    if not colon:
        raise unknown("agent", name, ROWS)
    if kind not in FILES:
        return Row(name, f"made by {name}", own=True)
    if not Path(rest).is_file():
        raise FileNotFoundError(f"there is no file {rest!r} to load the agent {name!r} from")
    about, trust = f"stable-baselines3's {Path(rest).name}", kind == "sb3-trust-pickle"
    return Row(ROWS["sac"].agent, about, path=Path(rest).resolve(), trust_pickle=trust, own=True)


def shown(name: str) -> str:
    """The name of a row in tables and folders: as given, but for files, 'sb3:model-1a2b3c4d' for 'sb3:runs/a/model.zip'."""
    kind, _, rest = name.partition(":")
    if kind not in FILES or name in ROWS:
        return name
    path = Path(rest).resolve()
    return f"{kind}:{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def of_recipe(recipe: str) -> Row:
    """The first row whose weights a recipe trains; KeyError, with the nearest names, for an unknown recipe."""
    rows = {row.recipe: row for row in reversed(ROWS.values()) if row.recipe is not None}
    if recipe not in rows:
        raise unknown("recipe", recipe, rows)
    return rows[recipe]


def of_data(data: str, recipe: str) -> str:
    """The name of the weights that a recipe makes of these data: 'maze2d-large-iql'; of the default recipe 'maze2d-large'."""
    return data if recipe == "default" else f"{data}-{recipe}"


def weights_name(name: str, seed: int = 0) -> str:
    """The name of one training seed's weights: that of seed 0 has no suffix."""
    return name if seed == 0 else f"{name}-seed{seed}"


def run_folder(name: str, seed: int = 0) -> Path:
    """Where training leaves the run of a training seed, unless a user names another folder."""
    return Path("runs") / f"{name}-seed{seed}"


def weights_file(name: str, seed: int = 0) -> Path | None:
    """Weights of a training seed from a finished run in ./runs, else shipped ones; None if there are neither."""
    shipped = Path(str(files("dfplan.agents"))) / "pretrained" / weights_name(name, seed)
    trained = run_folder(name, seed) / "weights"
    paths = (base.with_name(base.name + suffix) for base in (trained, shipped) for suffix in (".safetensors", ".zip"))
    return next((path for path in paths if path.is_file()), None)


def require_recipes(task: Task) -> None:
    """ValueError for a task that has no recipes."""
    suite_of(task).budget(task, Spec(1, 1, longest=task.max_episode_steps))


def suite_of(task: Task) -> Any:
    """The suite of a task, by its name: a row of the table needs no suite to be imported."""
    return resolve_name(f"dfplan.benchmarks.suites.{task.suite}:SUITE")


def require_device(device: str) -> None:
    """ValueError for what no agent computes on, and for what torch cannot compute on here."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ValueError(f"the device {device!r} is none that agents compute on: expected cpu or cuda")
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise ValueError(f"the device {device!r} cannot be used here ({reason}); expected 'cpu' or 'cuda'") from error
