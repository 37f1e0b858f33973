"""The same work on a Ray cluster of this machine, whose workers may die as well."""

import sys
from pathlib import Path

import pytest

from dfplan.benchmarks import cluster, evaluation, rows, store
from dfplan.benchmarks.cells import cell_path, read_cell
from dfplan.benchmarks.processes import WorkersDiedError
from dfplan.benchmarks.protocol import evaluate, evaluation_seeds
from dfplan.benchmarks.wanted import wanted
from dfplan.envs.registry import task

UMAZE = task("maze2d-umaze-v1")
FAULTY = "stand_in_faults:Faulty"
ORIGIN = {"command": "none", "commit": None, "versions": {}, "hardware": {}}


@pytest.fixture
def ray_cluster(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    found = cluster.Cluster(cluster.LOCAL, 2)
    yield found
    found.close()


def begun():
    return sorted(int(seed) for seed in Path("begun").read_text().split())


@pytest.mark.slow  # starting Ray takes long on a busy machine
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_cluster_plays_every_batch_once_though_its_workers_are_killed(ray_cluster):
    """One cluster for all of it, because starting one takes seconds."""
    cells, _ = wanted((UMAZE,), (FAULTY, "expert"), evaluation_seeds(15), "cpu", lambda row, task: (None,))
    Path("fault").write_text("worker 100005")
    evaluation.play(ray_cluster, cells, evaluation.describe(ray_cluster, cells), Path("results"), ORIGIN)
    assert begun() == [100_000, 100_005, 100_005, 100_010]
    alone = evaluate(rows.row("random").build(UMAZE), UMAZE.env_id, evaluation_seeds(15))
    faulty, expert = (store.whole(Path("results"), one) for one in cells)
    assert faulty.seeds == list(evaluation_seeds(15)) and faulty.returns == list(alone.returns)
    assert all(expert.success)

    hardware = ray_cluster.hardware()
    assert hardware["machines"] == 1 and hardware["cores"] == 2 and hardware["cpu"]

    store.begin_afresh(Path("results"), cells[0])
    Path("fault").write_text("always 100005")
    with pytest.raises(WorkersDiedError, match="3 worker processes died of batch 1 of stand_in_faults:Faulty"):
        evaluation.play(ray_cluster, cells[:1], evaluation.describe(ray_cluster, cells[:1]), Path("results"), ORIGIN)
    assert begun().count(100_005) == 2 + 3
    whole = read_cell(cell_path("results", UMAZE.env_id, FAULTY, None))
    assert whole == faulty  # the old one stays until the new one is whole


def test_without_ray_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"needs Ray, which is not installed: `pip install .*cluster"):
        cluster.Cluster(cluster.LOCAL, 1)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_address_where_nobody_listens_is_said_at_once(address):
    pytest.importorskip("ray")
    with pytest.raises(ConnectionError, match="no Ray cluster answers at"):
        cluster.Cluster(address, 1)
