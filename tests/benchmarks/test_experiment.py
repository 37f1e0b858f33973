"""Experiments: a killed one goes on, a finished one is used again, and the page shows what the recorded file holds."""

import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from dfplan.benchmarks import experiment
from dfplan.benchmarks.experiments import speed_and_arrival

ROOT = Path(__file__).resolve().parents[2]
RECORDED = sorted((ROOT / "benchmarks" / "recorded" / "experiments").glob("*.json"))


def counting(stop_at=None):
    """An experiment of three parts, whose plays are listed; the part `stop_at` is interrupted."""
    played = []

    def play(settings):
        if settings["number"] == stop_at:
            raise KeyboardInterrupt
        played.append(settings["number"])
        return {"returns": [10.0 * settings["number"]]}

    def conclude(parts):
        return sum(part["returns"][0] for part in parts.values()) == 30, "| table |\n"

    def parts(quick):
        return {f"part {n}": {"number": n} for n in range(1 if quick else 3)}

    return SimpleNamespace(CLAIM="They sum to 30.", PAGE="page", parts=parts, play=play, conclude=conclude, played=played)


def test_an_interrupted_experiment_goes_on_and_a_finished_one_is_used_again(tmp_path):
    file, stopped, whole = tmp_path / "sum.json", counting(stop_at=2), counting()
    with pytest.raises(KeyboardInterrupt):
        experiment.complete(stopped, file, "command", False)
    assert stopped.played == [0, 1] and not file.exists()
    result = experiment.complete(whole, file, "command", False)
    assert whole.played == [2] and result["held"] is True
    assert [path.name for path in tmp_path.iterdir()] == ["sum.json"]
    assert experiment.complete(whole, file, "another command", False) == result == json.loads(file.read_text())
    assert whole.played == [2]


def test_parts_of_another_commit_or_with_other_settings_are_played_again(tmp_path, monkeypatch):
    file, stopped, again = tmp_path / "sum.json", counting(stop_at=2), counting()
    with pytest.raises(KeyboardInterrupt):
        experiment.complete(stopped, file, "command", False)
    monkeypatch.setattr(experiment.provenance, "commit", lambda: "another")
    experiment.complete(again, file, "command", False)
    assert again.played == [0, 1, 2]
    again.parts = lambda quick: {f"part {n}": {"number": n + (n == 2)} for n in range(3)}
    assert experiment.complete(again, file, "command", False)["held"] is False
    assert again.played == [0, 1, 2, 0, 1, 3]


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "sum.json").write_text("[1")
    with pytest.raises(ValueError, match=r"sum\.json is damaged"):
        experiment.complete(counting(), tmp_path / "sum.json", "command", False)


def test_a_page_keeps_what_stands_around_the_block():
    page = "before\n<!-- experiment:sum:begin -->\nold\n<!-- experiment:sum:end -->\nafter\n"
    new = experiment.with_section(page, "sum", "new\n")
    assert new == page.replace("old", "new")
    with pytest.raises(ValueError, match="lacks the markers <!-- experiment:other:begin -->"):
        experiment.with_section(page, "other", "new\n")


def test_record_is_for_whole_experiments(capsys):
    assert experiment.main(["speed-and-arrival", "--quick", "--record"]) == 2
    assert "expected no --quick" in capsys.readouterr().err


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_a_page_shows_its_recorded_experiment(file):
    """The table, the verdict and the command are those of the file, and the verdict is that of its returns."""
    module = import_module(f"dfplan.benchmarks.experiments.{file.stem.replace('-', '_')}")
    result, page = experiment.read(file), (ROOT / "docs" / f"{module.PAGE}.md").read_text(encoding="utf-8")
    assert experiment.with_section(page, file.stem, experiment.section(module, result)) == page
    assert result["held"] is module.conclude(result["parts"])[0] and result["claim"] == module.CLAIM
    assert result["command"] == f"python benchmarks/experiment.py {file.stem} --record"
    assert not result["commit"].endswith("+")


def test_every_variant_is_played_with_its_options():
    settings = {name: part for name, part in speed_and_arrival.parts(True).items() if "umaze" in name}
    assert len(settings) == 4
    played = {name: speed_and_arrival.play({**part, "episodes": 1}) for name, part in settings.items()}
    assert [(part["speed"], part["arrival"]) for part in played.values()] == [(1.6, 0.45), (1, 0.45), (1.6, 0), (1, 0)]
    assert all(len(part["returns"]) == 1 for part in played.values())
    assert played["maze2d-umaze, speed=1"]["returns"] != played["maze2d-umaze, as shipped"]["returns"]


def test_the_claim_holds_only_if_each_option_raises_the_score_in_each_maze():
    def returns(options):
        lost = 20.0 * len(options)
        return [100.0 - lost + i for i in range(10)]

    played = {
        name: {"returns": returns(part["options"]), "settings": part} for name, part in speed_and_arrival.parts(True).items()
    }
    held, table = speed_and_arrival.conclude(played)
    assert held and table.count("(-") == 9
    played["maze2d-large, arrival=0"]["returns"] = [120.0 + i for i in range(10)]
    assert not speed_and_arrival.conclude(played)[0]
