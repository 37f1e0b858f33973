"""Networks: denoisers, called as `model(x (B, T, C), k (B, T)) -> (B, T, C)`, and what stands beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import nn

from dfplan.models.decoder import Decoder, DecoderConfig
from dfplan.models.inverse import InverseDynamics
from dfplan.models.outcomes import StepOutcomes
from dfplan.models.parts import ByParts
from dfplan.models.plausibility import StepPlausibility
from dfplan.models.recurrent import Recurrent, RecurrentConfig
from dfplan.models.token_value import TokenValue
from dfplan.models.transformer import Transformer, TransformerConfig
from dfplan.models.unet import Conditioned, TemporalUNet, TemporalValue, UNetConfig

ModelConfig = Annotated[TransformerConfig | RecurrentConfig, Field(discriminator="kind")]


def build(columns: int, levels: int, config: ModelConfig, parts: Sequence[int] = ()) -> nn.Module:
    """The denoiser that a config describes, for tokens of so many columns and levels 0 to `levels`.

    `parts` is the number 0..P-1 of each column's part, where parts have levels of their own: then k is (B, T, columns).
    """
    count = len(set(parts)) or 1
    if isinstance(config, TransformerConfig):
        network: nn.Module = Transformer(columns, levels, config, count)
    else:
        network = Recurrent(columns, levels, config, count)
    return ByParts(network, parts, levels) if parts else network


__all__ = [
    "ByParts",
    "Conditioned",
    "Decoder",
    "DecoderConfig",
    "InverseDynamics",
    "ModelConfig",
    "Recurrent",
    "RecurrentConfig",
    "StepOutcomes",
    "StepPlausibility",
    "TemporalUNet",
    "TemporalValue",
    "TokenValue",
    "Transformer",
    "TransformerConfig",
    "UNetConfig",
    "build",
]
