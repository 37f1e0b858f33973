"""Networks: denoisers, called as `model(x (B, T, C), k (B, T)) -> (B, T, C)`, and what stands beside them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from dfplan.models.inverse import InverseDynamics
from dfplan.models.plausibility import StepPlausibility
from dfplan.models.recurrent import Recurrent, RecurrentConfig
from dfplan.models.transformer import Transformer, TransformerConfig
from dfplan.models.unet import TemporalUNet, TemporalValue, UNetConfig

ModelConfig = Annotated[TransformerConfig | RecurrentConfig, Field(discriminator="kind")]


def build(columns: int, levels: int, config: ModelConfig) -> nn.Module:
    """The denoiser that a config describes, for tokens of so many columns and levels 0 to `levels`."""
    if isinstance(config, TransformerConfig):
        return Transformer(columns, levels, config)
    return Recurrent(columns, levels, config)


__all__ = [
    "InverseDynamics",
    "ModelConfig",
    "Recurrent",
    "RecurrentConfig",
    "StepPlausibility",
    "TemporalUNet",
    "TemporalValue",
    "Transformer",
    "TransformerConfig",
    "UNetConfig",
    "build",
]
