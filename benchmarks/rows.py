"""The rows of the table, as data: from a row's name to the agent that plays it.

A trained baseline joins by one entry in `ROWS`, which holds all that is said of it: its class, the recipe whose weights
it loads, its page, its color. A user's own agent needs none: `package.module:Class` names a class or a factory,
`sb3:PATH` a file of stable-baselines3, and `sb3-trust-pickle:PATH` one whose pickles, which may run any code, its user
trusts. Agents are imported when they are built, so that torch is loaded by the processes that need it only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal

from dfplan.envs.registry import Task, short_name
from dfplan.names import unknown

TRAINING_SEEDS = (0, 1, 2)
"""Of the agents that are trained: a recorded row has all of them."""
SUFFIXES = (".safetensors", ".zip")
"""Of weights files; the second is stable-baselines3's."""
FILES = ("sb3", "sb3-trust-pickle")
"""Prefixes of a model file of stable-baselines3 that is named by its path."""
MODEL_BASED, STABLE_BASELINES = (
    "dfplan.benchmarks.suites.maze2d_mppi",
    "dfplan.agents.online.stable_baselines:StableBaselinesAgent",
)
FAMILIES = ("Diffusion Forcing", "other diffusion planners", "offline RL", "MPPI", "online RL")
"""Rows that share a color, in the order of the legend."""


class MissingWeightsError(ValueError):
    """A row's weights are not there; the message names the command that trains them."""

    def __init__(self, weights: str, env: str, recipe: str, seed: int = 0) -> None:
        super().__init__(weights, env, recipe, seed)  # all of them, so that it passes between processes
        self.weights, self.env, self.recipe, self.seed = weights, env, recipe, seed

    @property
    def command(self) -> list[str]:
        """Arguments of `python benchmarks/train.py` that train the weights."""
        recipe = ["--recipe", self.recipe] if self.recipe != "default" else []
        return ["--env", self.env, *recipe, *(["--seed", str(self.seed)] if self.seed else [])]

    def __str__(self) -> str:
        train = " ".join(["python benchmarks/train.py", *self.command])
        return f"there are no weights {self.weights!r}: train them with `{train}`, or pass --train"


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
    printed: tuple[str, ...] = ()
    """Names in published.json of the methods that are the same algorithm."""
    family: str = ""
    """Its color's name in the legends, one of `FAMILIES`; '' for what is no learned agent."""
    headline: bool = False
    """Whether it stands in the README's table, of eight rows at most."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Changes to what the weights' header says: arguments of the agent's `with_options`."""
    stacked: int = 1
    """Training seeds that one weights file holds, for `load(path, member)`."""
    tasks: Literal["any", "single goal"] = "any"
    """'single goal': it is not given the goal, which is in what it has learned."""
    suites: tuple[str, ...] = ()
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

    def prepared(self, agent: Any, task: Task) -> Any:
        """A loaded agent with what of a task it needs beyond its weights."""
        return agent if self.prepare is None else resolve_name(self.prepare)(agent, task)

    def weights_file(self, task: Task, seed: int | None) -> Path | None:
        """Where the weights of a training seed are, None where there are none."""
        if self.recipe is None or seed is None:
            return self.path
        if self.stacked > 1:
            return weights_file(self.weights_name(task)) if seed < self.stacked else None
        return weights_file(self.weights_name(task), seed)

    def training_seeds(self, task: Task, wanted: Sequence[int] | None = None) -> tuple[int | None, ...]:
        """The wanted training seeds, or all of `TRAINING_SEEDS` that have weights; (None,) if it is not trained.

        Raises MissingWeightsError if there are no weights, or none of a wanted seed, and ValueError for a task that has
        no recipes.
        """
        if self.recipe is None:
            return (None,)
        here = [seed for seed in TRAINING_SEEDS if self.weights_file(task, seed) is not None]
        for seed in wanted if wanted is not None else [] if here else TRAINING_SEEDS[:1]:
            if self.weights_file(task, seed) is None:
                raise self.missing(task, seed)
        return tuple(here if wanted is None else wanted)

    def missing(self, task: Task, seed: int) -> ValueError:
        """The error for weights that are not there."""
        require_recipes(task)
        seed, env = 0 if self.stacked > 1 else seed, short_name(task.data_id)
        return MissingWeightsError(weights_name(self.weights_name(task), seed), env, str(self.recipe), seed)

    def refusal(self, task: Task) -> str | None:
        """Why it cannot play a task, None if it can."""
        if self.suites and task.suite not in self.suites:
            return f"it is made for {' and '.join(self.suites)} only"
        if self.tasks == "single goal" and task.random_goal:
            return f"it is not told the goal, and {task.env_id} has a new one in each episode"
        return None

    def build(self, task: Task, device: str = "cpu", seed: int | None = None) -> Any:
        """The agent of a training seed. ValueError, with one sentence, where it cannot be built."""
        if self.recipe is None and self.path is None:
            return resolve_name(self.agent)(task)
        suite_of(task)  # it registers the features that weights name
        path = self.weights_file(task, seed)
        if path is None:
            raise self.missing(task, seed or 0)
        load = resolve_name(self.agent).load
        agent = (
            load(path, seed)
            if self.stacked > 1
            else load(path, **({"trust_pickle": True} if self.trust_pickle else {}))
        )
        agent = self.prepared(agent, task)
        if device != "cpu" and self.recipe is not None:
            if not hasattr(agent, "to"):
                raise ValueError(f"{type(agent).__name__} computes on the CPU only: expected --device cpu")
            agent = agent.to(device)
        return agent.with_options(**self.options) if self.options else agent


def require_recipes(task: Task) -> None:
    """ValueError for a task that has no recipes."""
    budget = suite_of(task).budget
    if budget is not None:
        budget(task)


def suite_of(task: Task) -> Any:
    """The suite of a task, by its name: a row of the table needs no suite to be imported."""
    return resolve_name(f"dfplan.benchmarks.suites.{task.suite}:SUITE")


def require_device_name(device: str) -> None:
    """ValueError for what no agent computes on, wherever it runs."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ValueError(f"the device {device!r} is none that agents compute on: expected cpu or cuda")


def require_device(device: str) -> None:
    """ValueError unless torch can compute on the device."""
    require_device_name(device)
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise ValueError(f"the device {device!r} cannot be used here ({reason}); expected 'cpu' or 'cuda'") from error


def of_data(data: str, recipe: str) -> str:
    """The name of the weights that a recipe makes of these data: 'maze2d-large-iql'; of the default recipe 'maze2d-large'."""
    return data if recipe == "default" else f"{data}-{recipe}"


def weights_name(name: str, seed: int = 0) -> str:
    """The name of one training seed's weights: that of seed 0 has no suffix."""
    return name if seed == 0 else f"{name}-seed{seed}"


def run_folder(name: str, seed: int = 0) -> Path:
    """Where training leaves the run of a training seed, unless a user names another folder."""
    return Path("runs") / f"{name}-seed{seed}"


def of_recipe(recipe: str) -> Row:
    """The first row whose weights a recipe trains; KeyError, with the nearest names, for an unknown recipe."""
    rows = {row.recipe: row for row in reversed(ROWS.values()) if row.recipe is not None}
    if recipe not in rows:
        raise unknown("recipe", recipe, rows)
    return rows[recipe]


def weights_file(name: str, seed: int = 0) -> Path | None:
    """Weights of a training seed from a finished run in ./runs, else shipped ones; None if there are neither."""
    shipped = Path(str(files("dfplan.agents").joinpath("pretrained"))) / weights_name(name, seed)
    trained = run_folder(name, seed) / "weights"
    paths = (base.with_name(base.name + suffix) for base in (trained, shipped) for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


_planner = partial(Row, family="other diffusion planners")
_forcing = partial(
    Row, "dfplan.agents.diffusion_forcing:DiffusionForcingAgent", page="diffusion-forcing", family="Diffusion Forcing"
)
_diffuser = partial(_planner, "dfplan.agents.diffuser:DiffuserAgent", recipe="diffuser", page="diffuser")
_offline = partial(Row, family="offline RL", stacked=3, tasks="single goal")
_mppi = partial(Row, page="mppi", family="MPPI", suites=("maze2d",))
_online = partial(Row, STABLE_BASELINES, page="online-rl", family="online RL", tasks="single goal")
_CORL = "dfplan.agents.offline"
ROWS: dict[str, Row] = {
    "diffusion-forcing": _forcing(
        "Diffusion Forcing, the default recipe, without Monte Carlo guidance",
        "default",
        printed=("Diffusion Forcing without MCG",),
        headline=True,
    ),
    "diffusion-forcing-mcg": _forcing(
        "the same weights with Monte Carlo guidance: two futures of eight steps, the time to reach the goal as cost",
        "default",
        options={"scale": 1.0, "futures": 2, "future_steps": 8},
        printed=("Diffusion Forcing",),
    ),
    "diffusion-forcing-paper": _forcing(
        "the recipe of the paper: causal, bundles of 10 steps, zig-zag schedule; guided by the cost of the mean prediction",
        "paper",
        options={"futures": 0, "scale": 32.0},  # their header has two futures of one step, which draw none, and another scale
        printed=("Diffusion Forcing",),
        headline=True,
    ),
    "diffusion-forcing-chunks": _forcing(
        "chunks of diffused actions, asked by a token before them for a goal, or for a return", "chunks"
    ),
    "diffusion-forcing-plans": _forcing(
        "plans of states with a goal in the last one, sized by the data alone, tracked by inverse dynamics", "plans"
    ),
    "short": _forcing("the default recipe, trained as shortly as the two that follow", "short"),
    "full-sequence": _forcing("the short recipe, but for one noise level for all tokens", "full-sequence"),
    "next-token": _forcing("the short recipe, but for a clean past and one noisy token", "next-token"),
    "diffuser-pd": _diffuser(
        about="Diffuser, its planned states tracked by a PD controller",
        printed=("Diffuser (PD controller)",),
        headline=True,
    ),
    "diffuser-actions": _diffuser(
        about="the same weights, playing the actions diffused with the states",
        options={"execution": "diffused_actions"},
        printed=("Diffuser (diffused actions)",),
    ),
    "decision-diffuser": _planner(
        "dfplan.agents.decision_diffuser:DecisionDiffuserAgent",
        "Decision Diffuser: states by classifier-free guidance, actions by inverse dynamics",
        "decision-diffuser",
        "decision-diffuser",
        headline=True,
    ),
    "diffusion-veteran": _planner(
        "dfplan.agents.diffusion_veteran:DiffusionVeteranAgent",
        "Diffusion Veteran: sparse states, the best of many by a learned value, diffusion inverse dynamics",
        "dv",
        "diffusion-veteran",
        ("Diffusion Veteran",),
        headline=True,
        tasks="single goal",
    ),
    "bc": _offline(
        f"{_CORL}.bc:BehaviorCloningAgent", "behavior cloning of all data", "bc", "behavior-cloning", ("BC (CORL)",)
    ),
    "iql": _offline(f"{_CORL}.iql:IQLAgent", "Implicit Q-Learning", "iql", "iql", ("IQL (CORL)",), headline=True),
    "cql": _offline(f"{_CORL}.cql:CQLAgent", "Conservative Q-Learning", "cql", "cql", ("CQL (CORL)",)),
    "td3-bc": _offline(f"{_CORL}.td3_bc:TD3BCAgent", "TD3+BC", "td3-bc", "td3-bc", ("TD3+BC (CORL)",)),
    "awac": _offline(f"{_CORL}.awac:AWACAgent", "Advantage-Weighted Actor-Critic", "awac", "awac", ("AWAC (CORL)",)),
    "mppi": _mppi(
        f"{MODEL_BASED}:mppi", "MPPI on the true dynamics; cost: the straight distance to the goal", printed=("MPPI",)
    ),
    "mppi-field": _mppi(f"{MODEL_BASED}:mppi_field", "MPPI on the true dynamics; cost: the way through the maze's map"),
    "mppi-learned": _mppi(
        "dfplan.agents.mppi:LearnedMPPIAgent",
        "MPPI on learned dynamics; cost: the way through the maze's map",
        "dynamics",
        prepare=f"{MODEL_BASED}:with_field",
    ),
    "sac": _online("SAC, online: it learned in the environment itself, from its reward", "sac", headline=True),
    "td3": _online("TD3, online: it learned in the environment itself, from its reward", "td3"),
    "ppo": _online("PPO, online: it learned in the environment itself, from its reward", "ppo"),
    "her": _online("SAC with hindsight replay, online: it learned to reach any goal", "her", tasks="any"),
    "expert": Row(
        "dfplan.benchmarks.baselines:expert",
        "the controller that made the data; it is given the maze's map",
        headline=True,
        execution="waypoints and a PD controller",
        suites=("maze2d",),
    ),
    "random": Row("dfplan.benchmarks.baselines:random_actions", "uniform random actions", execution="random actions"),
}
"""In the order of the tables."""
DEFAULT_ROWS = ("diffusion-forcing", "diffusion-forcing-paper", "expert", "random")
"""What a run plays that names no agents: without the rows that take an hour."""


def row(name: str) -> Row:
    """The row of a name, of `module:Class`, or of a file, `sb3:PATH` or `sb3-trust-pickle:PATH`.

    Raises KeyError for an unknown name, FileNotFoundError for a missing file. What else is named is not looked for yet.
    """
    if name in ROWS:
        return ROWS[name]
    kind, colon, rest = name.partition(":")
    if not colon:
        raise unknown("agent", name, ROWS)
    if kind in FILES:
        if not Path(rest).is_file():
            raise FileNotFoundError(f"there is no file {rest!r} to load the agent {name!r} from")
        about, trust = f"stable-baselines3's {Path(rest).name}", kind == "sb3-trust-pickle"
        return Row(STABLE_BASELINES, about, path=Path(rest).resolve(), trust_pickle=trust, own=True)
    return Row(name, f"made by {name}", own=True)


def shown(name: str) -> str:
    """The name of a row in tables and folders: as given, but for files, 'sb3:model-1a2b3c4d' for 'sb3:runs/a/model.zip'."""
    kind, _, rest = name.partition(":")
    if kind not in FILES or name in ROWS:
        return name
    path = Path(rest).resolve()
    return f"{kind}:{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
