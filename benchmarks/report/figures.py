"""How plots and pictures are written: PNG files that carry a digest of what they are drawn from.

So whether one is up to date is seen without drawing it: matplotlib's bytes differ between versions.
"""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dfplan.whole_files import write_whole

INK, FAINT, GRID, PAPER = "#1E2530", "#8A93A3", "#E3E6EB", "#FFFFFF"
BLUE, ORANGE, PINK, GREEN, SKY = COLORS = "#0072B2", "#E69F00", "#CC79A7", "#009E73", "#56B4E9"
"""Okabe and Ito's colors, which stay distinct without full color vision."""
_KEY = "Source"
"""Of the PNG's texts."""


def save(path: Path, figure: Figure, digest: str) -> None:
    """Write a figure as a PNG of few colors, with the digest of what it is drawn from, and close it."""
    drawn, file, text = io.BytesIO(), io.BytesIO(), PngInfo()
    figure.savefig(drawn, format="png", dpi=110, facecolor=PAPER)
    plt.close(figure)
    text.add_text(_KEY, digest)
    with Image.open(drawn) as picture:
        few = picture.convert("RGB").quantize(255, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(file, format="PNG", optimize=True, pnginfo=text)
    write_whole(path, file.getvalue())


def digest_of(path: Path) -> str | None:
    """The digest in a PNG; None if there is no such file, or it holds none."""
    try:
        with Image.open(path) as picture:
            return getattr(picture, "text", {}).get(_KEY)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # missing or damaged: to be drawn again
        return None
