"""Records that are played again: what is confirmed, and what is not."""

import json
from contextlib import contextmanager
from dataclasses import replace

import pytest

from dfplan.benchmarks import spot_check
from dfplan.benchmarks.results import cells_in, write

UMAZE = ("--env", "maze2d-umaze", "--agents")


@pytest.fixture
def check(within, here, monkeypatch, capsys):
    """Play and record two untrained rows, then run the command on the records: status, what it shows, what it complains."""
    assert within(*UMAZE, "random", "expert", "--episodes", 6, "--quick")[0] == 0
    monkeypatch.setattr(spot_check, "workers", contextmanager(lambda *_: (yield here)))

    def call(*words):
        return spot_check.main(["--recorded", "results", *words]), *capsys.readouterr()

    return call


def test_records_are_confirmed_to_the_digit_or_not(check):
    status, shown, _ = check()
    assert status == 0 and shown.count(": 5 episodes are equal to the digit\n") == 2
    assert shown.endswith("2 of 2 records are confirmed\n")
    expert, random = cells_in("results")
    assert (expert.agent, random.agent) == ("expert", "random")
    changed = replace(expert, returns=(expert.returns[0] + 1, *expert.returns[1:]), reward_curve=())
    write("results", changed)
    status, shown, _ = check(*UMAZE, "expert")
    assert status == 1 and shown.startswith(
        "expert on maze2d-umaze-v1 (untrained): NOT CONFIRMED, 5 episodes differ by -0.2"
    )
    assert "on the same processor with the same versions" in shown and "0 of 1 records are confirmed" in shown
    elsewhere = replace(changed, hardware={"cpu": "an abacus"}, versions=changed.versions | {"torch": "0.1"})
    write("results", elsewhere)
    status, shown, _ = check(*UMAZE, "expert")
    assert status == 0 and "5 episodes differ by -0.2" in shown and "on another processor and torch" in shown
    write("results", replace(elsewhere, returns=tuple(one + 20 for one in expert.returns)))
    assert check(*UMAZE, "expert")[0] == 1, "rounding does not change every episode for the better"


def test_a_row_that_would_play_something_else_is_not_confirmed(check):
    cell = cells_in("results")[0]
    played = spot_check.again(spot_check.asked(cell))
    assert spot_check.compare(cell, None, played)[0]
    assert spot_check.compare(cell, "0" * 64, played) == (
        False, "NOT CONFIRMED, the row loads other weights than were recorded"
    )  # fmt: skip
    recorded = json.loads('{"plan": {"steps": 4, "gone": 1}, "speed": 1.7}')
    of = replace(played, config={"plan": {"steps": 4, "new": 2}, "speed": 1.7})
    assert spot_check.compare(replace(cell, config=recorded), None, of)[0], "fields come and go"
    of = replace(played, config={"plan": {"steps": 5}, "speed": 1.7})
    confirmed, sentence = spot_check.compare(replace(cell, config=recorded), None, of)
    assert not confirmed and sentence == "NOT CONFIRMED, the agent has another plan.steps than was recorded"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--threads", "0"), "threads must be at least 1, not 0"),
        ((*UMAZE, "exprt"), "did you mean expert"),
        (("--env", "maze2d-lrge"), "did you mean maze2d-large"),
        ((*UMAZE, "iql"), "results holds no record of these rows in these environments"),
    ],
)
def test_what_cannot_be_checked_is_one_sentence(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert spot_check.main(["--recorded", "results", *words]) == 2
    said = capsys.readouterr()
    assert said.out == "" and sentence in said.err and said.err.count("\n") == 1
