import dataclasses
import json

import pytest

from dfplan.benchmarks import results
from dfplan.benchmarks.results import (
    Cell,
    Key,
    NewerSchemaError,
    Timing,
    agent_folder,
    cell_path,
    cells_in,
    read,
    timings_in,
    write,
)
from dfplan.envs.registry import short_name

KEY = Key("a" * 64, "b" * 64, None, "c" * 64)


def small_cell(**changes):
    """A cell of umaze with as many episodes as it has seeds; all rewards are at one step, which is as good as any other."""
    seeds = changes.setdefault("seeds", (100_000, 100_001))
    count = len(seeds)
    success = changes.setdefault("success", tuple(i % 2 == 1 for i in range(count)))
    reached = None if success is None else tuple(12 if entered else None for entered in success)
    returns = changes.setdefault("returns", tuple(10.0 * i for i in range(count)))
    curve = (*[0.0] * (changes.get("episode_steps", 300) - 1), round(sum(returns) / count, 4))
    facts = dict(
        env_id="maze2d-umaze-v1", agent="planner", training_seed=0, about="it plans", execution="diffused actions",
        episode_steps=300, reference={"min": 23.85, "max": 161.86}, batch=5, first_reach=reached, reward_curve=curve,
        seconds=1.0, device="cpu", parameters=7, config={"speed": 1.4}, card=None, key=KEY,
        command="python benchmarks/run.py", created="2025-01-01T00:00:00+00:00", commit=None,
        versions={"python": "3.11"}, hardware={"cpu": "one"},
    )  # fmt: skip
    return Cell(**facts | changes)


def small_timing(**changes):
    timing = Timing(
        env_id="maze2d-umaze-v1", agent="planner", training_seed=0, median=0.5, p95=20.0, mean=2.0, plan=80.0,
        decisions=300, plans=3, threads=2, device="cpu", key=KEY, hardware={"cpu": "one"}, commit=None,
        created="2025-01-01T00:00:00+00:00",
    )  # fmt: skip
    return dataclasses.replace(timing, **changes)


def test_a_cell_and_a_timing_are_read_back_as_they_were_written(tmp_path):
    assert read(write(tmp_path, small_cell()), Cell) == small_cell()
    assert read(write(tmp_path, small_timing()), Timing) == small_timing()


def test_each_cell_has_a_place_of_its_own(tmp_path):
    assert short_name("maze2d-large-v1") == "maze2d-large" and agent_folder("my.mod:Agent x") == "my.mod_Agent_x"
    assert cell_path(tmp_path, "maze2d-large-v1", "iql", 2) == tmp_path / "maze2d-large" / "iql" / "seed2.json"
    assert cell_path(tmp_path, "maze2d-open-v0", "a:b", None) == tmp_path / "maze2d-open" / "a_b" / "untrained.json"


def test_a_tree_is_read_in_order_without_what_is_unfinished(tmp_path):
    for env_id, agent, seed in [
        ("multi2d-umaze-v1", "b", 1),
        ("maze2d-umaze-v1", "b", None),
        ("maze2d-umaze-v1", "a", 0),
    ]:
        write(tmp_path, small_cell(env_id=env_id, agent=agent, training_seed=seed))
        write(tmp_path, small_timing(env_id=env_id, agent=agent, training_seed=seed))
    (tmp_path / "maze2d-umaze" / "a" / ".seed1.json").write_text("{}")
    (tmp_path / "maze2d-umaze" / "a" / ".seed0.json.partial").write_text("{")
    found = [(cell.env_id, cell.agent, cell.training_seed) for cell in cells_in(tmp_path)]
    assert found == [("maze2d-umaze-v1", "a", 0), ("maze2d-umaze-v1", "b", None), ("multi2d-umaze-v1", "b", 1)]
    assert [timing.agent for timing in timings_in(tmp_path)] == ["a", "b", "b"]
    assert cells_in(tmp_path / "nothing") == []


def test_not_a_number_is_never_written(tmp_path):
    with pytest.raises(ValueError):
        write(tmp_path, small_cell(card={"metrics": float("nan")}))
    assert list(tmp_path.rglob("*.json")) == []


def test_returns_that_were_typed_into_a_file_are_found_by_the_reward_curve(tmp_path):
    """Whatever the number of episodes, and though the curve is rounded."""
    seeds = tuple(range(7))
    path = write(tmp_path, small_cell(seeds=seeds, returns=(10.0, 0, 3, 0, 0, 0, 1)))
    assert read(path, Cell).returns[2] == 3
    dense = write(tmp_path, small_cell(agent="dense", seeds=seeds, returns=(10.25, 0.5, 3, 0, 0, 0, 1)))
    assert read(dense, Cell).returns[0] == 10.25
    for one, returns in ((path, [10.0, 0, 4, 0, 0, 0, 1]), (dense, [10.25, 0.5, 4, 0, 0, 0, 1])):
        one.write_text(json.dumps(json.loads(one.read_text()) | {"returns": returns}))
        with pytest.raises(ValueError, match="the returns are not those"):
            read(one, Cell)


def test_what_is_no_cell_is_named(tmp_path):
    path = write(tmp_path, small_cell())
    whole = json.loads(path.read_text())
    cases = {
        "{": "Invalid JSON",
        "[]": "should be an object",
        json.dumps(whole | {"schema": 1}): "schema: Input should be 2",
        json.dumps({name: value for name, value in whole.items() if name != "key"}): "key: Field required",
        json.dumps(whole | {"surplus": 1}): "surplus: Unexpected keyword argument",
        json.dumps(whole | {"key": {"code": "a"}}): "key.config: Field required",
        json.dumps(whole | {"returns": [1.0]}): "one entry for each of one or more different seeds",
        json.dumps(whole | {"seeds": [1, 1]}): "one entry for each of one or more different seeds",
        json.dumps(whole | {"reward_curve": [1.0]}): "'reward_curve' has not one entry for each of the 300",
        json.dumps(whole | {"returns": [1.0, float("inf")]}): "returns.1: Input should be a finite number",
        json.dumps(whole | {"returns": [0.0, 11.0]}): "the returns are not those of its reward curve",
        json.dumps(whole | {"returns": ["0.0", 10.0]}): "returns.0: Input should be a valid number",
        json.dumps(whole | {"success": [0, 1]}): "success.0: Input should be a valid boolean",
        json.dumps(whole | {"success": [True, True]}): "'success' and 'first_reach'",
        json.dumps(whole | {"key": None}): "key: Input should be an object",
        json.dumps(whole | {"card": [1]}): "card",
        json.dumps(whole | {"schema": "2"}): "schema: Input should be 2",
        '{"schema": 2, "card": ' + "[" * 100_000: "recursion limit",
        "\x00\xff" * 100: "Invalid JSON",
        "": "Invalid JSON",
    }
    for text, reason in cases.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=reason) as caught:
            read(path, Cell)
        assert "seed0.json" in str(caught.value)
    path.write_text(json.dumps(whole | {"schema": 3, "surplus": 1}))
    with pytest.raises(NewerSchemaError, match="schema 3: a newer dfplan wrote it"):
        read(path, Cell)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="no ordinary file"):
        read(path, Cell)


def test_an_environment_without_success_or_a_score_has_cells_too(tmp_path):
    plain = small_cell(success=None, first_reach=None, reference=None, lengths=(300, 12))
    assert read(write(tmp_path, plain), Cell) == plain
    for part in ({"lengths": (1,)}, {"success": (True, False)}):
        with pytest.raises(ValueError, match=r"one entry for each|the same episodes"):
            dataclasses.replace(plain, **part)


def test_a_run_that_waited_for_one_which_removed_its_empty_folder_makes_it_again(tmp_path, monkeypatch):
    hold, calls = results.hold, []

    def once_without_a_folder(path, doing, wait):
        calls.append(path)
        if len(calls) == 1:
            path.parent.rmdir()
            raise FileNotFoundError(path)
        return hold(path, doing, wait)

    monkeypatch.setattr(results, "hold", once_without_a_folder)
    with results.writing(tmp_path / "out", ["maze2d-umaze-v1"]):
        assert calls == [tmp_path / "out" / "maze2d-umaze" / ".lock"] * 2 and calls[0].exists()
    assert list(tmp_path.iterdir()) == []  # nothing was written: nothing is left
