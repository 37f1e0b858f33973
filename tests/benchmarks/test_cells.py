import dataclasses
import json

import pytest

from dfplan.benchmarks.cells import (
    Cell,
    Timing,
    agent_folder,
    cell_path,
    cells_in,
    env_folder,
    read_cell,
    read_timing,
    timings_in,
    write_cell,
    write_timing,
)

KEY = {"code": "a" * 64, "config": "b" * 64, "weights": None, "protocol": "c" * 64}


def small_cell(**changes):
    """A cell of umaze with as many episodes as it has seeds."""
    seeds = changes.setdefault("seeds", [100_000, 100_001])
    count = len(seeds)
    cell = Cell(
        env_id="maze2d-umaze-v1", agent="planner", training_seed=0, about="it plans", execution="diffused actions",
        episode_steps=300, reference={"min": 23.85, "max": 161.86}, seeds=seeds, batch=5,
        returns=[10.0 * i for i in range(count)], success=[i % 2 == 1 for i in range(count)],
        first_reach=[None if i % 2 == 0 else 12 for i in range(count)], reward_curve=[0.25] * 300, seconds=1.0,
        device="cpu", parameters=7, config={"speed": 1.4}, card=None, key=KEY, command="python benchmarks/run.py",
        created="2025-01-01T00:00:00+00:00", commit=None, versions={"python": "3.11"}, hardware={"cpu": "one"},
    )  # fmt: skip
    return dataclasses.replace(cell, **changes)


def small_timing(**changes):
    timing = Timing(
        env_id="maze2d-umaze-v1", agent="planner", training_seed=0, median=0.5, p95=20.0, mean=2.0, plan=80.0,
        decisions=300, plans=3, threads=2, device="cpu", key=KEY, hardware={"cpu": "one"}, commit=None,
        created="2025-01-01T00:00:00+00:00",
    )  # fmt: skip
    return dataclasses.replace(timing, **changes)


def test_a_cell_and_a_timing_are_read_back_as_they_were_written(tmp_path):
    assert read_cell(write_cell(tmp_path, small_cell())) == small_cell()
    assert read_timing(write_timing(tmp_path, small_timing())) == small_timing()


def test_each_cell_has_a_place_of_its_own(tmp_path):
    assert env_folder("maze2d-large-v1") == "maze2d-large" and agent_folder("my.mod:Agent x") == "my.mod_Agent_x"
    assert cell_path(tmp_path, "maze2d-large-v1", "iql", 2) == tmp_path / "maze2d-large" / "iql" / "seed2.json"
    assert cell_path(tmp_path, "maze2d-open-v0", "a:b", None) == tmp_path / "maze2d-open" / "a_b" / "untrained.json"


def test_a_tree_is_read_in_order_without_what_is_unfinished(tmp_path):
    for env_id, agent, seed in [
        ("multi2d-umaze-v1", "b", 1),
        ("maze2d-umaze-v1", "b", None),
        ("maze2d-umaze-v1", "a", 0),
    ]:
        write_cell(tmp_path, small_cell(env_id=env_id, agent=agent, training_seed=seed))
        write_timing(tmp_path, small_timing(env_id=env_id, agent=agent, training_seed=seed))
    unfinished = tmp_path / "maze2d-umaze" / "a" / ".seed1" / "batch-0000.json"
    unfinished.parent.mkdir()
    unfinished.write_text("{}")
    (tmp_path / "maze2d-umaze" / "a" / "seed0.paths.npz").touch()
    (tmp_path / "maze2d-umaze" / "a" / ".seed0.json.partial").write_text("{")
    found = [(cell.env_id, cell.agent, cell.training_seed) for cell in cells_in(tmp_path)]
    assert found == [("maze2d-umaze-v1", "a", 0), ("maze2d-umaze-v1", "b", None), ("multi2d-umaze-v1", "b", 1)]
    assert [timing.agent for timing in timings_in(tmp_path)] == ["a", "b", "b"]
    assert [cell.agent for cell in cells_in(tmp_path / "maze2d-umaze")] == ["a", "b"]
    assert cells_in(tmp_path / "nothing") == []


def test_not_a_number_is_never_written(tmp_path):
    with pytest.raises(ValueError):
        write_cell(tmp_path, small_cell(returns=[float("nan"), 0.0]))
    assert list(tmp_path.rglob("*.json")) == []


def test_what_is_no_cell_is_named(tmp_path):
    path = write_cell(tmp_path, small_cell())
    whole = json.loads(path.read_text())
    cases = {
        "{": "not JSON",
        "[]": "schema 2",
        json.dumps(whole | {"schema": 1}): "schema 2",
        json.dumps({name: value for name, value in whole.items() if name != "key"}): "not a whole cell",
        json.dumps(whole | {"surplus": 1}): "not a whole cell",
        json.dumps(whole | {"key": {"code": "a"}}): "'key' must have",
        json.dumps(whole | {"returns": [1.0]}): "'returns' has not one entry",
        json.dumps(whole | {"seeds": [1, 1]}): "different numbers",
        json.dumps(whole | {"reward_curve": [1.0]}): "'reward_curve' has not one entry for each of the 300",
        json.dumps(whole | {"returns": [1.0, float("inf")]}): "not finite",
    }
    for text, reason in cases.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=reason) as caught:
            read_cell(path)
        assert "seed0.json" in str(caught.value)
    with pytest.raises(FileNotFoundError, match="there is no timing"):
        read_timing(tmp_path / "timing.json")
