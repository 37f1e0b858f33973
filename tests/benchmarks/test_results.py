import dataclasses
import json
from pathlib import Path

import pytest

from dfplan.benchmarks import results
from dfplan.benchmarks.results import AgentResult, Result, read_result

RECORDED = sorted((Path(__file__).parents[2] / "benchmarks" / "recorded").glob("*.json"))


def small_result(**changes):
    decision = {"median": 0.5, "p95": 20.0, "mean": 2.0, "plan": 80.0, "decisions": 10, "plans": 1, "threads": 2}
    planner = AgentResult(
        "planner", "it plans", "diffused actions", [0.0, 273.99], [False, True], [None, 12], decision, seconds=1.0
    )
    other = dataclasses.replace(planner, agent="other", decision=decision | {"plan": None}, first_reach=[None, None])
    result = Result(
        env_id="maze2d-large-v1", episode_steps=800, reference={"min": 6.7, "max": 273.99}, seeds=[100_000, 100_001],
        batch=25, quick=True, device="cpu", agents=[planner, other], command="python benchmarks/run.py",
        created="2025-01-01T00:00:00+00:00", seconds=3.0, peak_memory_mib=100.0, commit=None,
        versions=results.versions(), hardware=results.hardware() | {"threads": 2},
    )  # fmt: skip
    return dataclasses.replace(result, **changes)


def test_a_result_is_read_back_as_it_was_written(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(small_result().to_json())
    assert read_result(path) == small_result()


def test_not_a_number_is_never_written():
    agent = dataclasses.replace(small_result().agents[0], returns=[float("nan"), 0.0])
    with pytest.raises(ValueError):
        small_result(agents=[agent]).to_json()


def test_what_is_no_result_is_named(tmp_path):
    path = tmp_path / "result.json"
    with pytest.raises(FileNotFoundError, match=r"result\.json"):
        read_result(path)
    whole = json.loads(small_result().to_json())
    short = json.loads(small_result().to_json())
    short["agents"][1]["returns"].pop()
    cases = {
        "{": "not JSON",
        "[]": "schema",
        json.dumps(whole | {"schema": 99}): "schema",
        json.dumps({k: v for k, v in whole.items() if k != "agents"}): "not a whole",
        json.dumps(whole | {"surplus": 1}): "not a whole",
        json.dumps(short): "'returns' of 'other'",
    }
    for text, reason in cases.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=reason) as caught:
            read_result(path)
        assert "result.json" in str(caught.value)


def test_the_machine_and_the_versions_are_named():
    assert results.versions()["dfplan"] and results.versions()["mujoco"]
    assert results.hardware()["cores"] >= 1


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_results_are_whole_runs_of_clean_trees(path):
    result = read_result(path)
    assert not result.quick and len(result.seeds) == 100
    assert result.commit is not None and not result.commit.endswith("+")
