"""One denoising step as an ONNX file, for planning where there is no torch.

The file has one function: noisy tokens, their levels now and their levels after it, to the tokens after a DDIM step. Which
levels these are is up to whoever calls it, as in the sampler: docs/export.md has the loop over a scheduling matrix in numpy.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfplan.diffusion.loss import Diffusion
from dfplan.onnx_file import write_onnx
from dfplan.planning.model import TrajectoryModel
from dfplan.planning.plan_config import PlanConfig


class Step(nn.Module):
    """A DDIM step of a diffusion, as of `dfplan.diffusion.sampler.step`, in float32."""

    def __init__(self, diffusion: Diffusion):
        super().__init__()
        self.diffusion = diffusion

    def forward(self, x: Tensor, k: Tensor, k_next: Tensor) -> Tensor:
        """Tokens (B, T, C) at levels `k_next`, from x (B, T, C) at levels k >= k_next; what keeps its level keeps its value."""
        x0, _ = self.diffusion.denoise(x, k)
        return self.diffusion.schedule.posterior(x0, x, k, k_next, eta=0.0)[0]


def about(model: TrajectoryModel, plan: PlanConfig) -> dict[str, Any]:
    """What a loop needs beside the step, as plain JSON values.

    `columns` C of a token; `levels` K; `by_column`: whether levels are (B, T, C) or (B, T); `tokens` of the longest
    sequence; `present`: the place of the token that holds the latest observation; `observation`: the columns of a token in
    which its closing observation stands; `goal`: those in which a goal stands, and `goal_columns` those of an observation;
    `mean` and `std` of observations, `action_mean` and `action_std` of actions; `stride`: environment steps of a token;
    denoising `steps` of a token and the `uncertainty` of the agent's plans.
    """
    config, layout = model.config, model.config.layout

    def numbers(values: Tensor) -> list[float]:
        return [float(value) for value in values.cpu()]

    return {
        "columns": config.width,
        "levels": config.levels,
        "by_column": config.parts,
        "tokens": config.tokens,
        "present": config.present,
        "observation": list(range(config.width)[layout.last]),
        "goal": list(config.goal_part) if config.parts else [],
        "goal_columns": list(config.goal_columns),
        "mean": numbers(model.observation.mean),
        "std": numbers(model.observation.std),
        "action_mean": numbers(model.action.mean),
        "action_std": numbers(model.action.std),
        "stride": layout.stride,
        "steps": plan.steps,
        "uncertainty": plan.uncertainty,
    }


def write_step(model: TrajectoryModel, plan: PlanConfig, path: str | Path) -> None:
    """Write a model's denoising step as an ONNX file, whole or not at all; its metadata hold `about`.

    Inputs `x` (B, T, C) float32, `k` and `k_next` int64; output `x_next` (B, T, C). B and T are free. Raises what `write_onnx`
    raises.
    """
    step, config = Step(copy.deepcopy(model.diffusion)).cpu().eval(), model.config
    x = torch.zeros(2, config.tokens, config.width)
    k = torch.full(x.shape if config.parts else x.shape[:2], config.levels)
    write_onnx(step, {"x": x, "k": k, "k_next": k // 2}, "x_next", ("B", "T"), about(model, plan), path)
