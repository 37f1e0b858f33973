"""What a model of stable-baselines3 has learned, put from its file into a fresh model, without unpickling."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dfplan.training.checkpoint import CheckpointError, require_tensors
from dfplan.training.model_zip import ModelZip

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_total_timesteps", "_num_timesteps_at_start")
"""How far a training has come; all else in a model's JSON follows from its recipe."""


def put(model: BaseAlgorithm, file: ModelZip) -> None:
    """Give a model of the same recipe the file's weights, moments of optimizers, and counters.

    Raises CheckpointError for a file of another model, and for tensors of another shape or dtype, or not finite; the
    model is unchanged then.
    """
    states: dict[str, Any] = {name: _state(model, file, name, part) for name, part in model.get_parameters().items()}
    variables = _variables(model, file)
    counters = {name: file.data.get(name) for name in COUNTERS}
    for name, value in counters.items():
        if type(value) is not int or value < 0:
            raise CheckpointError(f"{file.name} is not a model of this run: its {name} is {value!r}")
    model.set_parameters(states, exact_match=True, device=model.device)
    for name, value in variables.items():
        operator.attrgetter(name)(model).data.copy_(value)
    vars(model).update(counters)


def _state(model: BaseAlgorithm, file: ModelZip, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """One of the model's parts, a module or an optimizer, as the file has it."""
    part = operator.attrgetter(name)(model)
    if not isinstance(part, torch.optim.Optimizer):
        tensors = file.state(name)
        require_tensors(own, tensors, f"{name}.pth in {file.name} does not fit the recipe")
        return tensors
    found = file.load(name)
    state = found.get("state") if isinstance(found, dict) else None
    parameters = [parameter for group in part.param_groups for parameter in group["params"]]
    if not isinstance(state, dict) or not all(type(i) is int and 0 <= i < len(parameters) for i in state):
        raise CheckpointError(f"{name}.pth in {file.name} is not the state of an optimizer of this recipe")
    for i, moments in state.items():
        if not isinstance(moments, dict) or not all(_fits(key, value, parameters[i]) for key, value in moments.items()):
            raise CheckpointError(f"{name}.pth in {file.name} does not fit the recipe: a moment has another shape")
    return {"state": state, "param_groups": own["param_groups"]}  # rates are the recipe's


def _fits(name: Any, value: Any, parameter: Tensor) -> bool:
    """Whether an entry of an optimizer's state is a count of steps, or a finite moment of the parameter's shape."""
    shape = () if name == "step" else tuple(parameter.shape)
    dtype = torch.float32 if name == "step" else parameter.dtype
    return (
        isinstance(value, Tensor)
        and tuple(value.shape) == shape
        and value.dtype == dtype
        and bool(torch.isfinite(value).all())
    )


def _variables(model: BaseAlgorithm, file: ModelZip) -> dict[str, Tensor]:
    """Trained tensors outside of modules, such as the logarithm of SAC's temperature."""
    names = model._get_torch_save_params()[1]
    found = file.load("pytorch_variables") if names else {}
    found = found if isinstance(found, dict) else {}
    expected: dict[str, Tensor] = {name: operator.attrgetter(name)(model) for name in names}
    given = {name: found[name] for name in expected if isinstance(found.get(name), Tensor)}
    require_tensors(expected, given, f"pytorch_variables.pth in {file.name} does not fit the recipe")
    return given
