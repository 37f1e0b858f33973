"""Playing on processes that may die: every batch, equal results, nothing lost."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from dfplan.benchmarks import play, results, rows
from dfplan.benchmarks.protocol import BATCH, evaluate, evaluation_seeds
from dfplan.benchmarks.results import Cell, Timing, Unfinished, read
from dfplan.benchmarks.wanted import timings, wanted
from dfplan.envs.registry import task
from dfplan.worker_processes import WorkersDiedError, workers

UMAZE = task("maze2d-umaze-v1")
FAULTY = "stand_in_faults:Faulty"
RESULTS = Path("results")
BEGUN = [100_000, 100_005, 100_010]
"""First seeds of three batches."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def cells(*agents, episodes=3 * BATCH):
    found, _ = wanted([UMAZE], agents, evaluation_seeds(episodes))
    return found


def path_of(cell):
    return results.cell_path(RESULTS, cell.env_id, cell.name, cell.training_seed)


def whole(cell, say=print):
    """The cell that is there, if it is used again."""
    return play.there([cell], RESULTS, say).get(cell)


def played(pool, asked):
    found = play.play(pool, asked, RESULTS, "none")
    assert {one: whole(one) for one in asked} == found
    return [found[one] for one in asked]


def kept(cell):
    """First seeds of the batches of an unfinished cell that are used again."""
    return [episodes.seeds[0] for episodes in play._batches(path_of(cell), cell, print).values()]


def keep(cell, *seeds):
    """Leave batches of the random agent, as a run does that is killed."""
    agent = rows.row("random").build(UMAZE)
    batches = [evaluate(agent, UMAZE.env_id, part) for part in seeds]
    results.write_file(path_of(cell).with_name(f".{path_of(cell).name}"), Unfinished(cell.key, {}, batches))


def begun():
    return sorted(int(seed) for seed in Path("begun").read_text().split())


def test_two_processes_one_of_which_dies_play_what_one_plain_loop_plays():
    asked = cells("expert", FAULTY)
    Path("fault").write_text("worker 100005")
    with workers(2) as pool:
        expert, faulty = played(pool, asked)
    assert set(begun()) == set(BEGUN) and begun().count(100_005) == 2
    alone = evaluate(rows.row("random").build(UMAZE), UMAZE.env_id, evaluation_seeds(15))
    assert faulty.returns == alone.returns and faulty.first_reach == alone.first_reach
    assert np.allclose(faulty.reward_curve, alone.reward_curve, atol=1e-4)
    assert all(expert.success) and expert.seeds == tuple(evaluation_seeds(15))
    assert not list(RESULTS.rglob(".*"))  # no batch and no partial file is left


def test_a_batch_that_kills_every_process_is_given_up_and_the_others_are_kept():
    Path("fault").write_text("always 100005")
    (one,) = cells(FAULTY)
    with workers(1) as pool:
        with pytest.raises(WorkersDiedError, match=r"3 worker processes died of batch 1 of stand_in_faults:Faulty on"):
            played(pool, [one])
        assert begun().count(100_005) == 3 and 100_000 in kept(one)
        Path("fault").unlink()
        Path("begun").unlink()
        (cell,) = played(pool, [one])
    assert cell.seeds == tuple(range(100_000, 100_015)) and 100_000 not in begun()


def changed(cell, **hashes):
    return dataclasses.replace(cell, key=dataclasses.replace(cell.key, **hashes))


def test_finished_batches_of_other_code_or_settings_are_not_used():
    (one,) = cells("random")
    keep(one, one.seeds[:BATCH])
    assert kept(one) == [100_000]
    for kind in ("code", "config", "weights", "protocol"):
        assert kept(changed(one, **{kind: "0" * 64})) == []


def test_a_cell_is_reused_only_for_the_same_key_and_no_more_episodes(here):
    (ten,) = cells("random", episodes=10)
    (cell,) = played(here, [ten])
    (fewer,), (more,) = cells("random", episodes=7), cells("random", episodes=11)
    assert whole(fewer) == cell and whole(more) is None
    said = []
    assert whole(changed(ten, code="0" * 64), said.append) is None and said[0].endswith("its code changed")
    path_of(ten).write_text("{")
    assert whole(ten) is None


def test_a_killed_run_that_had_all_batches_only_writes_the_cell(here):
    (one,) = cells("random", episodes=5)
    keep(one, one.seeds)
    (cell,) = played(here, [one])
    assert read(path_of(one), Cell) == cell and not list(RESULTS.rglob(".*"))


def test_an_agent_that_fails_is_named_with_the_line(here):
    failing = (
        r"'stand_in_faults:Failing' failed on maze2d-umaze-v1 with one observation \(4,\): KeyError: 'action' \(stand"
    )
    with pytest.raises(ValueError, match=failing):
        played(here, cells("stand_in_faults:Failing"))


def test_whatever_is_wrong_with_an_agent_is_said_before_anything_is_played(here):
    with pytest.raises(ValueError, match="has no attribute 'nothing'"):
        played(here, cells(FAULTY, "stand_in_faults:nothing"))
    assert not Path("begun").exists() and not RESULTS.exists()


def test_decisions_are_timed_once_for_each_group(here, monkeypatch):
    (one,) = timings(cells("random"), 20)
    timing = play.time_missing(here, [one], RESULTS)[one]
    assert read(path_of(one).with_name("timing.json"), Timing) == timing
    assert timing.decisions == 20 and 0 < timing.median <= timing.p95 and timing.plan is None
    assert play.time_missing(here, [one], RESULTS)[one] == timing
    assert play.time_missing(here, [dataclasses.replace(one, decisions=21)], RESULTS) != {one: timing}
    monkeypatch.setattr(play.provenance, "hardware", lambda: {"cpu": "another"})
    assert play.time_missing(here, [one], RESULTS)[one].hardware == {"cpu": "another"}
    of_groups = timings(cells("random", "expert", "random"), 20)
    assert [cell.agent for cell in of_groups] == ["random", "expert"]


def test_agents_whose_folders_would_be_the_same_are_refused(monkeypatch):
    monkeypatch.setitem(rows.ROWS, "stand_in_faults_Faulty", rows.ROWS["random"])
    with pytest.raises(ValueError, match="would share a folder"):
        cells(FAULTY, "stand_in_faults_Faulty")


def test_descriptions_say_how_an_agent_acts(monkeypatch):
    monkeypatch.delitem(sys.modules, "stand_in_planner", raising=False)  # as in a process that has not read it yet
    play.build.cache_clear()
    expert, planner = (play.describe(one) for one in cells("expert", "stand_in_planner:make"))
    assert expert["execution"] == "waypoints and a PD controller" and expert["card"] is None and expert["files"] == {}
    assert planner["execution"] == "waypoints" and planner["parameters"] == 7 and planner["card"]["seed"] == 0
    assert any(path.endswith("stand_in_planner.py") for path in planner["files"])
