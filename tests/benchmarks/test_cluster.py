"""The same work on a Ray cluster of this machine, whose workers may die as well."""

import sys
from pathlib import Path

import pytest
from test_play import FAULTY, RESULTS, UMAZE, begun, cells, path_of

from dfplan.benchmarks import play, rows, run
from dfplan.benchmarks.protocol import evaluate, evaluation_seeds
from dfplan.benchmarks.results import Cell, read
from dfplan.worker_processes import LOCAL, WorkersDiedError, workers


@pytest.mark.slow  # starting Ray takes long on a busy machine
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_cluster_plays_every_batch_though_its_workers_are_killed(tmp_path, monkeypatch):
    """One cluster for all of it, because starting one takes seconds."""
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with workers(2, LOCAL) as pool:
        asked = cells(FAULTY, "expert")
        Path("fault").write_text("worker 100005")
        played = play.play(pool, asked, RESULTS, "none")
        assert set(begun()) == {100_000, 100_005, 100_010} and begun().count(100_005) == 2
        alone = evaluate(rows.row("random").build(UMAZE), UMAZE.env_id, evaluation_seeds(15))
        faulty, expert = (played[one] for one in asked)
        assert faulty.seeds == tuple(evaluation_seeds(15)) and faulty.returns == alone.returns
        assert all(expert.success)

        assert pool.machines == 1 and pool.count == 2 and expert.hardware["cpu"]

        Path("fault").write_text("always 100005")
        with pytest.raises(WorkersDiedError, match="3 worker processes died of batch 1 of stand_in_faults:Faulty"):
            play.play(pool, asked[:1], RESULTS, "none", fresh=True)
        assert begun().count(100_005) == 2 + 3
    assert read(path_of(asked[0]), Cell) == faulty  # the old one stays


def test_without_ray_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    expected = r"needs Ray, which is not installed: `pip install .*cluster"
    with pytest.raises(ValueError, match=expected), workers(1, LOCAL):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_address_where_nobody_listens_is_said_at_once(address):
    pytest.importorskip("ray")
    with pytest.raises(ConnectionError, match="no Ray cluster answers at"), workers(1, address):
        pass


@pytest.mark.parametrize(
    ("words", "address"), [("--cluster --quick", LOCAL), ("--quick --cluster", LOCAL), ("--cluster auto", "auto")]
)
def test_cluster_without_an_address_is_one_on_this_machine(words, address, monkeypatch):
    asked = []
    monkeypatch.setattr(run, "run", lambda arguments, console: asked.append(arguments.cluster))
    assert run.main(words.split()) == 0 and asked == [address]
