"""Playing on processes that may die: every batch once, equal results, nothing lost."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from dfplan.benchmarks import evaluation, rows, store
from dfplan.benchmarks.cells import cell_path, read_cell, read_timing, timing_path
from dfplan.benchmarks.processes import Processes, WorkersDiedError
from dfplan.benchmarks.protocol import BATCH, evaluate, evaluation_seeds
from dfplan.benchmarks.wanted import timings, wanted
from dfplan.envs.registry import task

UMAZE = task("maze2d-umaze-v1")
FAULTY = "stand_in_faults:Faulty"
ORIGIN = {"command": "none", "commit": None, "versions": {}, "hardware": {}}
BEGUN = [100_000, 100_005, 100_010]
"""First seeds of three batches."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def cells(*agents, episodes=3 * BATCH, tasks=(UMAZE,)):
    found, _ = wanted(tasks, agents, evaluation_seeds(episodes), "cpu", lambda row, task: (None,))
    return found


def play(cells, processes=1):
    pool = Processes(processes)
    try:
        played = evaluation.play(pool, cells, evaluation.describe(pool, cells), Path("results"), ORIGIN)
    finally:
        pool.close()
    assert list(played.values()) == [store.whole(Path("results"), one) for one in played]
    return [played[one] for one in cells]


def begun():
    return sorted(int(seed) for seed in Path("begun").read_text().split())


def numbers(cell):
    return {name: getattr(cell, name) for name in ("seeds", "returns", "success", "first_reach", "reward_curve")}


def test_two_processes_play_what_one_plain_loop_plays():
    expert, random = play(cells("expert", "random"), processes=2)
    alone = evaluate(rows.row("random").build(UMAZE), UMAZE.env_id, evaluation_seeds(15))
    assert random.returns == list(alone.returns) and random.first_reach == list(alone.first_reach)
    assert np.allclose(random.reward_curve, alone.reward_curve, atol=1e-4)
    assert all(expert.success) and expert.seeds == list(evaluation_seeds(15))
    assert not list(Path("results").rglob(".*"))  # no batch and no partial file is left
    drawn = store.first_episodes(Path("results"), random)
    assert all(np.array_equal(a, b) for a, b in zip(drawn.paths, alone.paths[:BATCH], strict=True))
    assert drawn.returns == alone.returns[:BATCH] and drawn.plans == (None,) * BATCH


def test_the_batch_of_a_killed_process_is_played_again():
    (undisturbed,) = play(cells(FAULTY))
    assert begun() == BEGUN
    shutil.rmtree("results")
    Path("begun").unlink()
    Path("fault").write_text("worker 100005")
    (cell,) = play(cells(FAULTY), processes=2)
    assert begun() == sorted([*BEGUN, 100_005])
    assert numbers(cell) == numbers(undisturbed)


def test_a_batch_that_kills_every_process_is_given_up_and_the_others_are_kept():
    Path("fault").write_text("always 100005")
    with pytest.raises(WorkersDiedError, match=r"3 worker processes died of batch 1 of stand_in_faults:Faulty on maze2d"):
        play(cells(FAULTY))
    assert begun().count(100_005) == 3
    (one,) = cells(FAULTY)
    assert 0 in store.kept(Path("results"), one)
    Path("fault").unlink()
    (cell,) = play([one])
    assert cell.seeds == list(range(100_000, 100_015)) and begun().count(100_000) == 1


def test_finished_batches_of_other_code_or_settings_are_not_used():
    (one,) = cells("random")
    episodes = evaluate(rows.row("random").build(UMAZE), UMAZE.env_id, one.seeds[:BATCH])
    store.keep(Path("results"), one, 0, episodes, {})
    assert list(store.kept(Path("results"), one)) == [0]
    for kind in ("code", "config", "weights", "protocol"):
        other = dataclasses.replace(one, key=dataclasses.replace(one.key, **{kind: "0" * 64}))
        assert store.kept(Path("results"), other) == {}
    torn = next(Path("results").rglob("batch-0000.json"))
    torn.write_text(torn.read_text()[:50])
    assert store.kept(Path("results"), one) == {}


def test_a_cell_is_reused_only_for_the_same_key_and_no_more_episodes():
    (ten,) = cells("random", episodes=10)
    (cell,) = play([ten])
    (fewer,), (more,) = cells("random", episodes=7), cells("random", episodes=11)
    assert store.whole(Path("results"), fewer) == cell and store.whole(Path("results"), more) is None
    other = dataclasses.replace(ten, key=dataclasses.replace(ten.key, code="0" * 64))
    assert store.whole(Path("results"), other) is None
    cell_path("results", UMAZE.env_id, "random", None).write_text("{")
    assert store.whole(Path("results"), ten) is None


def test_a_killed_run_that_had_all_batches_only_writes_the_cell():
    (one,) = cells("random", episodes=5)
    store.keep(Path("results"), one, 0, evaluate(rows.row("random").build(UMAZE), UMAZE.env_id, one.seeds), {})
    (cell,) = play([one])
    assert read_cell(cell_path("results", UMAZE.env_id, "random", None)) == cell
    with pytest.raises(ValueError, match="has 0 of 1 batches"):
        store.finish(Path("results"), one, {}, ORIGIN)


def test_an_agent_that_fails_is_named_with_the_line():
    failing = r"'stand_in_faults:Failing' failed on maze2d-umaze-v1 with one observation \(4,\): KeyError: 'action' \(stand"
    with pytest.raises(ValueError, match=failing):
        play(cells("stand_in_faults:Failing"))


def test_whatever_is_wrong_with_an_agent_is_said_before_anything_is_played():
    with pytest.raises(ValueError, match="has no attribute 'nothing'"):
        play(cells(FAULTY, "stand_in_faults:nothing"))
    assert not Path("begun").exists() and not Path("results").exists()


def test_decisions_are_timed_once_for_each_group():
    pool, hardware = Processes(1), {"cpu": "one"}
    (one,) = timings(cells("random", FAULTY)[:1], 20)
    try:
        evaluation.time_decisions(pool, [one], Path("results"), hardware, None)
    finally:
        pool.close()
    timing = read_timing(timing_path("results", UMAZE.env_id, "random"))
    assert timing.decisions == 20 and 0 < timing.median <= timing.p95 and timing.plan is None
    assert store.timed(Path("results"), one, hardware) == timing
    assert store.timed(Path("results"), one, {"cpu": "another"}) is None
    assert store.timed(Path("results"), dataclasses.replace(one, decisions=21), hardware) is None


def test_agents_whose_folders_would_be_the_same_are_refused(folder, monkeypatch):
    monkeypatch.setitem(rows.ROWS, "stand_in_faults_Faulty", rows.ROWS["random"])
    with pytest.raises(ValueError, match="would share the folder"):
        cells(FAULTY, "stand_in_faults_Faulty")
