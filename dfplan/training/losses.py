"""What a learner returns to the training loop."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def total(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Losses that are minimized together, scalars: their sum under 'loss', then each by its name, without gradient."""
    return {"loss": torch.stack(list(losses.values())).sum(), **{name: part.detach() for name, part in losses.items()}}
