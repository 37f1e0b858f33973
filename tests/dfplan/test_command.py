"""What every command does: one sentence and a status in place of a traceback, and threads that do not spin."""

import errno
import subprocess
import sys
from dataclasses import dataclass

import pytest

from dfplan import command
from dfplan.command import BAD_INPUT, FAILED, INTERRUPTED, LONGEST, progress, refuse

COMMANDS = (
    *(
        "dfplan.benchmarks.run",
        "dfplan.benchmarks.train",
        "dfplan.benchmarks.report.__main__",
        "dfplan.benchmarks.plan_speed",
        "dfplan.benchmarks.spot_check",
    ),
    *("dfplan.agents.weights", "dfplan.envs.collect", "dfplan.viewer.__main__"),
)


@dataclass(frozen=True)
class Arguments:
    number: int = 3
    """A number."""


def ending(error, **options):
    """The status of a command that ends with an error."""

    @command.with_arguments(Arguments, **options)
    def main(arguments):
        raise error

    return main([])


def test_words_become_arguments_and_what_is_returned_the_status(monkeypatch):
    given = []

    @command.with_arguments(Arguments)
    def main(arguments):
        """What it does."""
        given.append(arguments.number)
        return arguments.number if arguments.number > 3 else None

    monkeypatch.setattr(sys, "argv", ["command", "--number", "7"])
    assert (main([]), main(["--number", "5"]), main()) == (0, 5, 7)
    assert given == [3, 5, 7] and main.__doc__ == "What it does."


def test_a_command_can_be_typed_again_from_its_arguments():
    @dataclass(frozen=True)
    class Options:
        env: tuple[str, ...] = ("a",)
        training_seeds: tuple[int, ...] | None = None
        output: str = "results"
        quick: bool = False

    options = Options(("b c", "d"), (1, 2), "elsewhere", quick=True)
    typed = "python run.py --env 'b c' d --training-seeds 1 2 --quick"
    assert command.typed("run.py", options, leave_out=["output"]) == typed
    assert command.typed("run.py", Options()) == "python run.py"


def test_what_cannot_be_done_is_one_sentence_and_a_status(capsys):
    for error in (ValueError("no"), KeyError("no"), OSError("no"), ImportError("no"), FloatingPointError("no")):
        assert ending(error) == BAD_INPUT
        assert capsys.readouterr().err in ("error: no\n", "error: 'no'\n")
    assert ending(RuntimeError("no"), failures=(RuntimeError,)) == FAILED
    assert capsys.readouterr().err == "error: no\n"
    assert ending(KeyboardInterrupt(), interrupted="all is kept") == INTERRUPTED
    assert capsys.readouterr().err == "interrupted; all is kept\n"
    with pytest.raises(ZeroDivisionError):  # an error of ours is shown whole
        ending(ZeroDivisionError())


def test_a_refusal_is_one_line_of_bounded_length(capsys):
    assert refuse(ValueError("a\n b\n" + "c" * 1000 + " the end")) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: a b ccc") and len(said) == LONGEST + 1 and said.endswith("c the end\n")
    refuse(OSError(errno.ENOSPC, "No space left on device", "out/file"))
    assert capsys.readouterr().err == "error: out/file: No space left on device\n"
    refuse(ValueError("red \x1b[31m"))
    assert capsys.readouterr().err == "error: red \\x1b[31m\n"


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys, monkeypatch):
    """At the beginning, after each long silence, and at the end; the clock is the test's."""
    clock = iter([0.0, 10.0, 31.0, 40.0, 62.0, 63.0])
    monkeypatch.setattr("dfplan.command.time.monotonic", lambda: next(clock))
    seen = list(progress("abcde", "playing", 5, every=30.0))
    assert seen == list("abcde")
    shown = ["0 of 5", "2 of 5 after 31 s", "4 of 5 after 62 s", "5 of 5 after 63 s"]
    assert capsys.readouterr().out == "".join(f"playing: {line}\n" for line in shown)


def test_progress_is_shown_before_its_work_is_done(capsys):
    values = progress(iter("ab"), "playing", 2, every=0.0)
    assert next(values) == "a" and capsys.readouterr().out == "playing: 0 of 2\n"
    assert next(values) == "b" and capsys.readouterr().out.startswith("playing: 1 of 2 after")


@pytest.mark.parametrize("module", COMMANDS)
def test_idle_threads_sleep_from_the_moment_that_torch_is_loaded(module):
    """OpenMP reads its variables when its library is loaded; so the program ends where torch would be loaded."""
    program = (
        "import os, sys\n"
        "os.environ.pop('OMP_WAIT_POLICY', None)\n"
        "def audit(event, arguments):\n"
        "    if event == 'import' and arguments[0] == 'torch':\n"
        "        os._exit(0 if os.environ.get('OMP_WAIT_POLICY') == 'passive' else 9)\n"
        "sys.addaudithook(audit)\n"
        f"import {module}\n"
        "import torch\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
