"""What all commands share: how a command line is read, how a result is shown, and what is said instead of a traceback.

A command is a function of its arguments, a frozen dataclass with a sentence under each field:

    from dfplan import command

    @command.with_arguments(Arguments, __doc__)
    def main(arguments: Arguments) -> None: ...

    if __name__ == "__main__":
        sys.exit(main())

This module is imported before torch, which reads the variable below when it is loaded.
"""

from __future__ import annotations

import functools
import io
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

from dfplan.quoting import printable, shortened

# Idle OpenMP threads that spin slow a small network down many times on a machine with few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

LONGEST = 300
"""Characters of a refusal."""
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
"""Exit statuses: work that failed, input that cannot be used, Ctrl-C."""
REFUSED = (ValueError, KeyError, OSError, ImportError, FloatingPointError)
"""Errors whose message is one sentence for the user."""

QUIET_SECONDS = 30.0
"""How long a command without a terminal is silent, if there is anything to be said."""

A = TypeVar("A")
V = TypeVar("V")


def with_arguments(
    arguments: type[A],
    description: str | None = None,
    *,
    prog: str | None = None,
    interrupted: str = "nothing is lost",
    failures: tuple[type[Exception], ...] = (),
) -> Callable[[Callable[[A], int | None]], Callable[..., int]]:
    """Make a command of a function of `arguments`: `main(words=None)` reads the words, or those that the process was
    started with, calls the function, and returns the exit status.

    Args:
        arguments: The dataclass whose fields are the options.
        description: What `--help` says first.
        prog: The command as `--help` calls it, where that is not the file's name.
        interrupted: What is said after 'interrupted; ' when Ctrl-C ends the command, with status 130.
        failures: Errors that end the command with status 1, besides `REFUSED`, which end it with status 2. Of both, one
            line on stderr is all that is shown.
    """

    def decorate(do: Callable[[A], int | None]) -> Callable[..., int]:
        @functools.wraps(do)
        def main(words: Sequence[str] | None = None) -> int:
            import tyro  # late: who imports a module for its functions needs no command line

            given = tyro.cli(arguments, description=description, prog=prog, args=words)
            try:
                return do(given) or 0
            except failures as error:
                refuse(error)
                return FAILED
            except REFUSED as error:
                return refuse(error)
            except KeyboardInterrupt:
                print(f"interrupted; {interrupted}", file=sys.stderr)
                return INTERRUPTED

        return main

    return decorate


def typed(program: str, arguments: Any, leave_out: Sequence[str] = ()) -> str:
    """A command line to be typed as it stands: `program` with the options that are not at their defaults.

    `leave_out`: names of options that do not matter.
    """
    words = ["python", program]
    for option in fields(arguments):
        value = getattr(arguments, option.name)
        if option.name not in leave_out and value != option.default:
            words.append(f"--{option.name.replace('_', '-')}")
            words += [] if value is True else map(str, value if isinstance(value, tuple) else [value])
    return shlex.join(words)


def refuse(error: BaseException) -> int:
    """Say on stderr what was wrong, in one line of at most `LONGEST` characters, and return `BAD_INPUT`."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    line = " ".join(f"error: {text or type(error).__name__}".split())
    print(shortened(printable(line), LONGEST), file=sys.stderr)
    return BAD_INPUT


def progress(values: Iterable[V], what: str, total: int, every: float = QUIET_SECONDS) -> Iterator[V]:
    """The same values, and how many of `total` there have been: a bar on a terminal, elsewhere a line now and then.

    There a line is printed at the beginning, and with the first value after `every` seconds without one.
    """
    if sys.stdout.isatty():
        yield from track(values, what, total)
        return
    began = said = time.monotonic()
    print(f"{what}: 0 of {total}", flush=True)
    for done, value in enumerate(values, start=1):
        yield value
        now = time.monotonic()
        if now - said >= every or done == total:
            said = now
            print(f"{what}: {done} of {total} after {now - began:.0f} s", flush=True)


def console() -> Console:
    """A console that shows '?' for what the terminal's encoding lacks, 130 columns wide where it is no terminal."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(width=None if sys.stdout.isatty() else 130)
