"""What the benchmark's commands show: tables on any terminal, and refusals in one sentence."""

from __future__ import annotations

import io
import sys

from rich.console import Console

from dfplan.quoting import printable

LONGEST = 300
"""Characters of a refusal."""
BAD_INPUT = 2
"""Exit status of a command that was given what it cannot use."""


def console() -> Console:
    """A console that shows '?' for what the terminal's encoding lacks, 130 columns wide where it is no terminal."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(width=None if sys.stdout.isatty() else 130)


def refuse(error: BaseException) -> int:
    """Say on stderr what was wrong, in one line of at most `LONGEST` characters, and return `BAD_INPUT`."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    line = printable(" ".join(f"error: {text or type(error).__name__}".split()))
    print(line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}...", file=sys.stderr)
    return BAD_INPUT
