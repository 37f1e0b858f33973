"""A few numbers for a picture: the places in it of what moves or changes.

A deep spatial autoencoder (Finn et al. 2016). Convolutions make a map for each of K points, and a softmax over the map
gives the point's place. The picture is reconstructed from the places alone, each drawn as a small bump (as in Jakab et al.
2018), over a background that is learned too. So the points come to lie on what moves or changes.

A picture that cannot be reconstructed, such as random or black pixels, is like none that was recorded: `PictureEncoder`
makes its numbers unknown. This finds corrupted frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dfplan.data.features import parts
from dfplan.fields import CheckedFields, Positive, Size
from dfplan.training.losses import total

Pictures = NDArray[np.uint8]
WHITE = 255.0
GAIN = 10.0
"""Factor of the maps before the softmax: with sharp maps from the beginning the points move at once."""
BATCH = 256
"""Pictures that are encoded at once."""


@dataclass(frozen=True)
class PictureConfig(CheckedFields):
    """Which pictures are encoded, and how. Raises ValueError unless each picture has a key and a shape."""

    keys: tuple[str, ...]
    """Entries of a Dict observation that are pictures; '' where the observation is one itself."""
    shapes: tuple[tuple[Size, Size, Size], ...]
    """Height, width and channels of each."""
    points: Size = 16
    """Points K in each picture, of which each has two numbers."""
    width: Size = 24
    """Features of the convolutions."""
    side: Size = 64
    """Pixels to which the longer side of a picture is reduced first."""
    bump: Positive = 0.1
    """Deviation of the bump by which a point is drawn; the picture reaches from -1 to 1."""
    doubt: Positive = 3.0
    """A picture is unknown if the error of its reconstruction is more than this many times the usual one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.keys or len(set(self.keys)) != len(self.shapes) or len(self.keys) != len(self.shapes):
            raise ValueError(f"each picture needs a key and a shape, got {self.keys} and {self.shapes}")


class Keypoints(nn.Module):
    """The autoencoder of one picture."""

    def __init__(self, shape: tuple[int, int, int], config: PictureConfig):
        super().__init__()
        height, width, channels = shape
        factor = min(1.0, config.side / max(height, width))
        self.size = (max(1, round(height * factor)), max(1, round(width * factor)))
        self.bump, features = config.bump, config.width
        self.maps = nn.Sequential(
            nn.Conv2d(channels, features, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, config.points, 1),
        )
        self.draw = nn.Sequential(
            nn.Conv2d(config.points, features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, 4 * channels, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.background = nn.Parameter(torch.full((channels, *self.size), 0.5))

    def reduced(self, pictures: Tensor) -> Tensor:
        """(B, height, width, channels) uint8 -> (B, channels, h, w) from 0 to 1, no side longer than the config's."""
        scaled = pictures.movedim(-1, 1).float() / WHITE
        return scaled if scaled.shape[2:] == self.size else F.interpolate(scaled, self.size, mode="area")

    def points(self, reduced: Tensor) -> Tensor:
        """(B, K, 2): the places of the points, x and y from -1 to 1."""
        maps = GAIN * self.maps(reduced - self.background).float()
        share = maps.flatten(2).softmax(-1).view_as(maps)
        y, x = (torch.linspace(-1, 1, n, device=maps.device) for n in maps.shape[2:])
        return torch.stack([(share.sum(2) * x).sum(-1), (share.sum(3) * y).sum(-1)], -1)

    def drawn(self, points: Tensor) -> Tensor:
        """(B, channels, h, w): the picture that is reconstructed from these places."""
        h, w = (-(-n // 2) for n in self.size)
        y, x = (torch.linspace(-1, 1, n, device=points.device) for n in (h, w))
        away = (x - points[..., :1])[:, :, None, :].square() + (y - points[..., 1:])[..., None].square()
        changes = self.draw((-away / (2 * self.bump**2)).exp())[..., : self.size[0], : self.size[1]]
        return self.background + changes


class PictureEncoder(nn.Module):
    """Encodes the pictures in an observation: P autoencoders, which `forward` trains, and their usual errors."""

    usual: Tensor
    """(P,) the error that nearly all recorded pictures stay below."""

    def __init__(self, config: PictureConfig):
        super().__init__()
        self.config = config
        self.each = nn.ModuleList(Keypoints(shape, config) for shape in config.shapes)
        self.register_buffer("usual", torch.full((len(config.keys),), torch.finfo(torch.float32).max))

    def forward(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """The mean squared error of each picture's reconstruction, from a batch of (B, height, width, channels) uint8 each."""
        losses = {}
        for number, (key, pictures) in enumerate(zip(self.config.keys, batch, strict=True)):
            keypoints: Any = self.each[number]
            reduced = keypoints.reduced(pictures)
            losses[f"picture {key}".rstrip()] = F.mse_loss(keypoints.drawn(keypoints.points(reduced)).float(), reduced)
        return total(losses)

    @torch.no_grad()
    def begin(self, number: int, pictures: Pictures) -> None:
        """Begin with the mean of these pictures (N, height, width, channels) of one kind as their background."""
        keypoints: Any = self.each[number]
        keypoints.background.copy_(keypoints.reduced(torch.from_numpy(pictures)).mean(0))

    @torch.no_grad()
    def finish(self) -> None:
        """Round what was trained to half precision, as in files, so that a loaded encoder gives the same numbers."""
        for parameter in self.parameters():
            parameter.copy_(parameter.half())

    def half_sized(self) -> dict[str, Tensor]:
        """The tensors of a file: what was trained in half precision."""
        trained = {name for name, _ in self.named_parameters()}
        return {name: part.half() if name in trained else part for name, part in self.state_dict().items()}

    @torch.no_grad()
    def encode(self, number: int, pictures: Pictures) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The numbers (N, 2 K) of pictures (N, height, width, channels) of one kind, and the errors (N,) of their
        reconstruction."""
        keypoints: Any = self.each[number]
        points, errors = [], []
        for begin in range(0, len(pictures), BATCH):
            given = torch.from_numpy(np.ascontiguousarray(pictures[begin : begin + BATCH])).to(self.usual.device)
            reduced = keypoints.reduced(given)
            found = keypoints.points(reduced)
            points.append(found.flatten(1).cpu())
            errors.append((keypoints.drawn(found) - reduced).square().mean((1, 2, 3)).cpu())
        return torch.cat(points).numpy(), torch.cat(errors).numpy()

    def numbers(self, observation: Any, unknown: bool) -> Any:
        """An observation, or a batch, with numbers (..., 2 K) in place of each picture (..., height, width, channels).

        With `unknown`, all numbers of an observation with a picture that cannot be reconstructed are NaN, also those that
        came beside the picture. Raises ValueError for a picture of another shape or type.
        """
        named = parts(observation)
        result: dict[str, Any] = dict(named or {})
        lost: NDArray[np.bool_] | None = None
        for number, (key, shape) in enumerate(zip(self.config.keys, self.config.shapes, strict=True)):
            picture = _read(observation if named is None else named, key, shape)
            points, errors = self.encode(number, picture.reshape(-1, *shape))
            leading = picture.shape[:-3]
            result[key] = points.reshape(*leading, -1)
            beyond = (errors > self.config.doubt * float(self.usual[number])).reshape(leading)
            lost = beyond if lost is None else lost | beyond
        if unknown and lost is not None and lost.any():
            result = {key: _hidden(value, lost) for key, value in result.items()}
        return result[""] if named is None else result


def _read(observation: Any, key: str, shape: tuple[int, int, int]) -> Pictures:
    """The picture under a key of an observation, or a batch of them."""
    what = f"the observation's entry '{key}'" if key else "the observation"
    if key and not (isinstance(observation, Mapping) and key in observation):
        found = sorted(map(str, observation)) if isinstance(observation, Mapping) else type(observation).__name__
        raise ValueError(f"an observation must be a Dict with the picture '{key}', got {found}")
    picture = np.asarray(observation[key] if key else observation)
    if picture.dtype != np.uint8 or picture.shape[-3:] != shape or picture.ndim not in (3, 4) or not picture.size:
        raise ValueError(
            f"{what} must be a picture {shape} of uint8, or a batch of them, got {picture.dtype} {picture.shape}"
        )
    return picture


def _hidden(value: Any, lost: NDArray[np.bool_]) -> NDArray[Any]:
    """Numbers (..., d), NaN in the rows (...) that are lost; an array with other rows is not changed, and is refused later."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" or array.shape[:-1] != lost.shape:
        return array
    return np.where(lost[..., None], np.nan, array)
