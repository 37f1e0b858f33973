"""Names that are not known, said with the nearest ones that are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnknownNameError(KeyError):
    """A KeyError whose text is a plain sentence (KeyError itself prints the repr of its argument)."""

    def __str__(self) -> str:
        """The sentence."""
        return str(self.args[0])


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that is not known, with the nearest known names."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or '(none)'}"
    return UnknownNameError(f"unknown {kind} {name!r}; {hint}")
