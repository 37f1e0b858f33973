"""Optional packages that have environments or agents: loaded where they are needed, named where they are missing."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Package:
    """A package that dfplan works without."""

    module: str
    """Its name for `import`."""
    requirement: str
    """What pip installs, with the versions that serve."""

    def require(self, what: str) -> None:
        """Raise ModuleNotFoundError, with one sentence, where the package that `what` needs is not installed."""
        if importlib.util.find_spec(self.module) is None:
            raise ModuleNotFoundError(
                f"{what} needs the package {self.module}, which is not installed: pip install '{self.requirement}'",
                name=self.module,
            )

    def load(self, what: str) -> ModuleType:
        """The package. ModuleNotFoundError as in `require`."""
        self.require(what)
        return importlib.import_module(self.module)
