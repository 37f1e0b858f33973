"""The policy in a model file of stable-baselines3, built again from the file's plain text and tensors.

What stable-baselines3 pickles, it also writes as text: classes as `<class '...'>`, spaces as their numbers. From these
the policy is built by the library's own classes, and gets the file's tensors. A policy that needs anything else, such as
a class of its author's own, is refused, because that is in the pickles alone.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.distributions import Distribution

from dfplan.training.checkpoint import CheckpointError, require_tensors
from dfplan.training.model_zip import PICKLED, ModelZip

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.policies import BasePolicy

_TELLING = {"cg_max_steps": "trpo", "clip_range": "ppo", "target_policy_noise": "td3", "target_entropy": "sac"}
"""Settings that only one algorithm has, for policies of a module that several of them share or of a user's own."""
_COUNTS = ("n_critics", "n_lstm_layers")
"""Settings of a policy that count parts of it."""
_FOR_LEARNING = ("optimizer_class", "optimizer_kwargs", "device")
"""Settings of a policy that do not change how it acts."""


@dataclass(frozen=True)
class ActingModel:
    """The acting part of a model. An algorithm of stable-baselines3 has these attributes too, except for its name."""

    algorithm: str
    """Name of the algorithm's class, such as 'SAC'."""
    policy: BasePolicy
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    num_timesteps: int
    """Environment steps of its training."""


def acting_model(model: ModelZip, device: str = "cpu") -> ActingModel:
    """The policy of a file, with its weights.

    Raises CheckpointError for spaces that are not vectors, for an algorithm or a library that is not there, for weights
    that do not fit the policy, and for a policy that only pickles could describe.
    """
    low, high = model.action_limits()
    action_space = spaces.Box(low, high, low.shape, low.dtype.type)
    widths = model.observation_widths()
    observation_space: spaces.Space[Any] = spaces.Dict({name: _unlimited(width) for name, width in widths.items()})
    if "" in widths:
        observation_space = _unlimited(widths[""])
    algorithm = algorithm_class(model.data, model.name)
    policy_class = _policy_class(model, algorithm, isinstance(observation_space, spaces.Dict))
    state = model.state("policy")
    policy = _built(model, policy_class, observation_space, action_space, state).to(device)
    policy.set_training_mode(False)
    return ActingModel(algorithm.__name__, policy, observation_space, action_space, model.data["num_timesteps"])


def algorithm_class(data: Mapping[str, Any], name: str) -> type[BaseAlgorithm]:
    """The algorithm of a file's JSON, by the module of its policy's class, else by a setting that only one has."""
    module = data["policy_class"]["__module__"].split(".")
    package = "sb3_contrib" if module[0] == "sb3_contrib" or "cg_max_steps" in data else "stable_baselines3"
    if module[0] == package and module[1:2] not in ([], ["common"]):
        found = module[1]
    elif "recurrent" in module:
        found = "recurrentppo"
    else:  # A2C alone has no setting of its own
        found = next((known for key, known in _TELLING.items() if key in data), "a2c" if "gae_lambda" in data else "")
    if found == "ppo_recurrent":
        found = "recurrentppo"
    if found == "td3" and (data.get("policy_kwargs") or {}).get("n_critics") in (1, "1"):
        found = "ddpg"
    try:
        library = importlib.import_module(package)
    except ImportError as error:
        install = package.replace("_", "-")
        raise CheckpointError(
            f"{name} is a model of {package}, which is not installed: pip install {install}"
        ) from error
    known = {key.lower(): value for key, value in vars(library).items() if hasattr(value, "learn")}
    if found not in known:
        policy = data["policy_class"]["__module__"]
        raise CheckpointError(f"the algorithm of {name} is not one of {package} (its policy is of {policy})")
    return known[found]


def _policy_class(model: ModelZip, algorithm: type[BaseAlgorithm], goal_conditioned: bool) -> type[BasePolicy]:
    """The library's class of the file's policy; its name stands in the text of its constructor, if it has one."""
    described = model.data["policy_class"]
    constructor = re.match(r"<function (\w+)\.__init__ at", str(described.get("__init__")))
    usual = "MultiInput" if goal_conditioned else "Mlp"  # where no name stands in the file
    names = sorted(algorithm.policy_aliases, key=lambda name: not name.startswith(usual))
    for known in (algorithm.policy_aliases[name] for name in names):
        named = constructor is None or known.__name__ == constructor[1]
        if named and known.__module__ == described["__module__"]:
            return known
    name = f"{described['__module__']}.{constructor[1] if constructor else '?'}"
    raise _needs_pickle(model, f"its policy class {name}")


def _policy_settings(model: ModelZip, tensors: int) -> dict[str, Any]:
    """Arguments of the policy's class; counts may not exceed the number of tensors that the file has for them."""
    given = model.data.get("policy_kwargs", {})
    settings = {name: value for name, value in given.items() if name not in (":type:", PICKLED, *_FOR_LEARNING)}
    for name, value in settings.items():
        if PICKLED in given and isinstance(value, str):
            value = _library_class(value)
            if value is None:
                raise _needs_pickle(model, f"its policy's {name}, {given[name][:80]}")
        if _longest(value) > tensors or (name in _COUNTS and not (type(value) is int and 0 < value <= tensors)):
            raise model.misfit(f"its policy's {name} asks for more parts than it has weights")
        settings[name] = value  # of a key that is there: the dictionary keeps its size
    return settings


def _library_class(text: str) -> Any:
    """The class that a text names, if it is an activation of torch or a feature extractor of stable-baselines3."""
    if match := re.fullmatch(r"<class 'torch\.nn\.modules\.activation\.(\w+)'>", text):
        return getattr(torch.nn, match[1], None)
    if match := re.fullmatch(r"<class 'stable_baselines3\.common\.torch_layers\.(Flatten|Combined)Extractor'>", text):
        return getattr(importlib.import_module("stable_baselines3.common.torch_layers"), f"{match[1]}Extractor")
    return None


def _longest(value: Any) -> int:
    """Length of the longest list in nested lists and dictionaries."""
    if isinstance(value, Mapping):
        return max((_longest(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return max(len(value), *(_longest(item) for item in value), 0)
    return 0


def _built(
    model: ModelZip,
    policy_class: type[BasePolicy],
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    state: Mapping[str, Tensor],
) -> BasePolicy:
    """A policy with the file's weights, first without memory, so that only one of the weights' own size takes any."""
    settings = _policy_settings(model, len(state))
    parameters = inspect.signature(policy_class).parameters
    if "use_sde" in parameters:
        settings.setdefault("use_sde", model.data.get("use_sde", False))
    given = [observation_space, action_space, *([no_learning] if "lr_schedule" in parameters else [])]
    try:
        expected = _without_memory(policy_class)(*given, **copy.deepcopy(settings)).state_dict()
        require_tensors(expected, state, f"policy.pth in {model.name} does not fit its policy")
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and replaced
            policy = policy_class(*given, **settings).float()
        policy.load_state_dict(dict(state))
    except CheckpointError:
        raise
    except Exception as error:  # whatever a policy raises that meets settings of another type
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"{model.name} cannot be built as a {policy_class.__name__} ({reason})") from error
    return policy


def _without_memory(policy_class: type[BasePolicy]) -> Callable[..., BasePolicy]:
    """The class, building policies whose tensors have shapes and no memory."""
    meta = torch.device("meta")
    # The library moves parts of a policy to its `device`, and nothing can be moved from this one to another.
    shapes_only = type(policy_class.__name__, (policy_class,), {"device": property(lambda self: meta)})

    def build(*given: Any, **settings: Any) -> BasePolicy:
        checked = Distribution._validate_args
        Distribution.set_default_validate_args(False)  # exploration noise is drawn at once, and has no values to check
        try:
            with meta:
                return shapes_only(*given, **settings).float()
        finally:
            Distribution.set_default_validate_args(checked)

    return build


def _unlimited(width: int) -> spaces.Box:
    """A space of observations without its limits, which no policy of vectors reads."""
    return spaces.Box(-np.inf, np.inf, (width,), np.float32)


def _needs_pickle(model: ModelZip, what: str) -> CheckpointError:
    return CheckpointError(
        f"{model.name} cannot be read without unpickling: {what}, is in its pickles alone. They may run any code: if you "
        "trust the file, sb3-trust-pickle:PATH, or load(path, trust_pickle=True)"
    )


def no_learning(progress: float) -> float:
    """A learning rate schedule for a model that only acts."""
    return 0.0
