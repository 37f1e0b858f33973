"""Folders that hold something other than this run."""

from dataclasses import replace

import pytest
from regression import CONFIG, PowerFailureError, assert_same_run, batch_until, fail, run

from dfplan.training.loop import require_trainable


def test_files_of_others_are_left_alone(tmp_path):
    """Names that a run would use, in a folder that is not a run's."""
    for name in ("log.jsonl", "weights.safetensors", "tensorboard/events.out.tfevents.1.host.2.0", "notes.txt"):
        folder = tmp_path / name.replace("/", "-")
        mine = folder / name
        mine.parent.mkdir(parents=True)
        mine.write_text("mine")
        for call in (lambda f=folder: run(f), lambda f=folder: require_trainable(f, CONFIG, {})):
            with pytest.raises(ValueError, match="holds files, but no run of dfplan: choose another folder"):
                call()
        assert mine.read_text() == "mine" and [p for p in folder.rglob("*") if p.is_file()] == [mine]
    with pytest.raises(OSError, match="notes"):
        run(tmp_path / "notes.txt" / "notes.txt")


def test_what_others_add_to_a_run_stays(tmp_path):
    run(tmp_path, replace(CONFIG, steps=5))
    mine = [tmp_path / "notes.txt", tmp_path / "tensorboard" / "events.out.tfevents.1.host.2.0"]
    for path in mine:
        path.write_text("mine")
    run(tmp_path, replace(CONFIG, steps=5))
    assert [path.read_text() for path in mine] == ["mine", "mine"]


def test_a_run_of_an_earlier_version_has_no_marker_and_goes_on(tmp_path, reference):
    with pytest.raises(PowerFailureError):
        run(tmp_path, source=batch_until(30, fail))
    (tmp_path / ".dfplan-run").unlink()
    run(tmp_path)
    assert_same_run(tmp_path, reference)


def test_an_online_run_is_no_place_for_another(tmp_path):
    (tmp_path / "run.json").write_text('{"checkpoint": "checkpoint-64", "recipe": {}, "seed": 0}')
    with pytest.raises(ValueError, match="holds another run, an online one, and this is an offline one"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
