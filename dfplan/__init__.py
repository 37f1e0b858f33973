"""dfplan: decision making and planning with Diffusion Forcing (Chen et al. 2024)."""

__version__ = "0.1.0"
