"""A view of a maze from above, drawn on the CPU with Pillow, oriented like the layout's text (x down, y right)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from dfplan.envs.maze.layouts import Layout

CELL_PIXELS = 40
PARTICLE_RADIUS = 0.1
_EDGE = 0.7  # cell 0 starts at -0.7: its half width and the walls' shift
_SMOOTH = 4  # drawn this many times larger, then averaged down
_FLOOR, _WALL, _GOAL, _PARTICLE = (246, 244, 238), (70, 78, 92), (233, 150, 122), (38, 84, 160)


def _box(x: float, y: float, radius: float, scale: float) -> tuple[float, float, float, float]:
    """Pillow's left, top, right, bottom of a disc around a point in observation coordinates."""
    row, column = x + _EDGE, y + _EDGE
    return (column - radius) * scale, (row - radius) * scale, (column + radius) * scale, (row + radius) * scale


@lru_cache(maxsize=16)
def _background(layout: Layout, goal: tuple[float, float], radius: float) -> Image.Image:
    scale = CELL_PIXELS * _SMOOTH
    rows, columns = layout.shape
    image = Image.new("RGB", (columns * scale, rows * scale), _FLOOR)
    pen = ImageDraw.Draw(image)
    pale = tuple((2 * floor + color) // 3 for floor, color in zip(_FLOOR, _GOAL, strict=True))
    pen.ellipse(_box(*goal, radius, scale), fill=pale)
    pen.ellipse(_box(*goal, 0.12, scale), fill=_GOAL)
    for i, j in np.argwhere(layout.walls).tolist():
        pen.rectangle((j * scale, i * scale, (j + 1) * scale - 1, (i + 1) * scale - 1), fill=_WALL)
    return image.reduce(_SMOOTH)


def pixels(places: np.ndarray) -> np.ndarray:
    """Where places (..., 2) of a maze lie in its picture: (..., 2), to the right and down, from its corner."""
    return (np.asarray(places)[..., 1::-1] + _EDGE) * CELL_PIXELS


def draw(layout: Layout, position: tuple[float, ...], goal: tuple[float, float], radius: float) -> np.ndarray:
    """Draw walls, the goal with its radius, and the particle; uint8 (rows * 40, columns * 40, 3)."""
    image = _background(layout, goal, radius).copy()
    x, y = position[:2]
    left, top, right, bottom = (round(edge) for edge in _box(x, y, 2 * PARTICLE_RADIUS, CELL_PIXELS))
    mask = Image.new("L", ((right - left) * _SMOOTH, (bottom - top) * _SMOOTH), 0)
    disc = zip(_box(x, y, PARTICLE_RADIUS, CELL_PIXELS), (left, top, left, top), strict=True)
    ImageDraw.Draw(mask).ellipse([(edge - corner) * _SMOOTH for edge, corner in disc], fill=255)
    image.paste(_PARTICLE, (left, top), mask.reduce(_SMOOTH))
    return np.asarray(image).copy()
