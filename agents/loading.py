"""Any trained agent from its weights file, whose header names the algorithm.

from dfplan.agents.loading import from_pretrained
agent = from_pretrained("maze2d-large-iql")
"""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from dfplan.agents import hub
from dfplan.names import unknown
from dfplan.training.checkpoint import CheckpointError
from dfplan.training.weights_file import kind_in

PRETRAINED = Path(str(resources.files("dfplan.agents"))) / "pretrained"
"""The folder of the weights that come with the package: all of them in a clone, a part of them in the wheel."""
MANIFEST = "manifest.json"
"""The file in it that names them all: `benchmarks/report/manifest.py` writes it."""
ELSEWHERE = "DFPLAN_WEIGHTS"
"""The variable that may name a repository of the Hugging Face hub with the weights that the wheel lacks, as 'user/name'."""
STABLE_BASELINES = "stable_baselines3"
"""The kind of a file of stable-baselines3, a zip with a card beside it."""
AGENTS = {
    "trajectory_model": "dfplan.agents.diffusion_forcing:DiffusionForcingAgent",
    "diffuser": "dfplan.agents.diffuser:DiffuserAgent",
    "decision_diffuser": "dfplan.agents.decision_diffuser:DecisionDiffuserAgent",
    "diffusion_veteran": "dfplan.agents.diffusion_veteran:DiffusionVeteranAgent",
    "diffusion_policy": "dfplan.agents.diffusion_policy:DiffusionPolicyAgent",
    "recurrent_policy": "dfplan.agents.recurrent_policy:RecurrentPolicyAgent",
    "dynamics": "dfplan.agents.mppi:LearnedMPPIAgent",
    "graph_search": "dfplan.agents.graph_search:GraphSearchAgent",
    "bc": "dfplan.agents.offline.bc:BehaviorCloningAgent",
    "iql": "dfplan.agents.offline.iql:IQLAgent",
    "cql": "dfplan.agents.offline.cql:CQLAgent",
    "td3-bc": "dfplan.agents.offline.td3_bc:TD3BCAgent",
    "distilled": "dfplan.agents.distillation:DistilledAgent",
    "gciql": "dfplan.agents.offline.gciql:GCIQLAgent",
    "awac": "dfplan.agents.offline.awac:AWACAgent",
    STABLE_BASELINES: "dfplan.agents.online.stable_baselines:StableBaselinesAgent",
}
"""The agent's class, 'module:class', for each kind of weights file."""


def kind_of(path: str | Path) -> str:
    """The kind of a weights file, a key of `AGENTS` if it is an agent's. CheckpointError for a file that is none."""
    return STABLE_BASELINES if Path(path).suffix == ".zip" else kind_in(path)


def agent_class(kind: str) -> Any:
    """The agent's class for a kind of weights file, a key of `AGENTS`."""
    return resolve_name(AGENTS[kind])


def load(path: str | Path, member: int | None = None) -> Any:
    """The agent of a weights file, acting as its header says; `member` picks one of several training seeds in the file.

    Raises CheckpointError for a file that is missing, truncated, foreign, or of no known kind, and ValueError for a
    member that the file does not hold. Nothing in a file is unpickled, and so no code in it runs.
    """
    kind = kind_of(path)
    if kind not in AGENTS:
        raise CheckpointError(f"{path} holds {kind!r}, not the weights of an agent: expected {', '.join(AGENTS)}")
    agent = agent_class(kind)
    if agent.stacked:
        return agent.load(path, member)
    if member:
        raise ValueError(f"{path} holds one training seed: there is no member {member}")
    return agent.load(path)


def from_pretrained(name: str, member: int | None = None) -> Any:
    """The agent of weights that come with the package, such as 'maze2d-large', or of 'user/name' on the Hugging Face hub.

    Raises ValueError for a name that is not there, and what `load` and `hub.fetch` raise.
    """
    return load(pretrained_path(name), member)


def weights_in(folder: str | Path) -> list[Path]:
    """The weights files in a folder, by name."""
    return sorted(path for path in Path(folder).glob("*") if path.suffix in (".safetensors", ".zip"))


def pretrained_files(kind: str | None = None) -> list[Path]:
    """The weights files that come with the package, of one kind or of all, by name."""
    return [path for path in weights_in(PRETRAINED) if kind is None or kind_of(path) == kind]


def pretrained_names(kind: str | None = None) -> list[str]:
    """Their names."""
    return [path.stem for path in pretrained_files(kind)]


def pretrained_path(name: str, kind: str | None = None) -> Path:
    """The file of a name; 'user/name' is fetched from the Hugging Face hub.

    ValueError, with the names that there are, if it is not among them; for weights that only a clone of the repository has,
    with the command that makes them again. `ELSEWHERE` names where those are fetched from instead.
    """
    if hub.NAME.fullmatch(name):
        return hub.fetch(name)
    files = {path.stem: path for path in pretrained_files(kind)}
    if name in files:
        return files[name]
    elsewhere = json.loads((PRETRAINED / MANIFEST).read_bytes()).get(name)
    if elsewhere is not None and not (PRETRAINED / elsewhere["file"]).exists():
        if repository := os.environ.get(ELSEWHERE):
            if elsewhere["file"].endswith(".zip"):
                hub.fetch(repository, f"{name}.json")  # the card, which must lie beside it
            return hub.fetch(repository, elsewhere["file"], elsewhere["sha256"])
        size = f"{elsewhere['bytes'] / 1e6:.1f} MB"
        raise ValueError(
            f"the weights {name!r} ({size}) are not in the installed package: a clone of the repository has them in "
            f"agents/pretrained, and `{elsewhere['command']}` makes them again there; or {ELSEWHERE}=user/name names a "
            "repository of the Hugging Face hub that holds them"
        )
    if name in pretrained_names():
        raise ValueError(f"the weights {name!r} are another agent's: dfplan.agents.loading.from_pretrained loads any")
    raise ValueError(str(unknown("pretrained weights", name, files)))
