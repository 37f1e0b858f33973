"""dfplan: decision making and planning with Diffusion Forcing (Chen et al. 2024)."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_HOMES = {
    "Ask": "dfplan.planning.ask",
    "evaluate": "dfplan.agents.evaluation",
    "load": "dfplan.data.readers",
    "load_agent": "dfplan.agents.loading:load",
    "register_features": "dfplan.data.features",
    "train": "dfplan.agents.training",
}
"""Where the package's own names are, 'module' or 'module:other name'; imported when asked for: `import dfplan` is cheap."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dfplan' has no attribute {name!r}")
    module, _, own = _HOMES[name].partition(":")
    return getattr(import_module(module), own or name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
