import io
import os
import sys

import pytest
import torch

from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.agents.loading import pretrained_files
from dfplan.agents.weights import Weights, main, read
from dfplan.data.tokens import TokenLayout
from dfplan.envs.registry import TASKS
from dfplan.models import TransformerConfig
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.training.checkpoint import load_checkpoint, save_checkpoint

CARD = {
    "name": "tiny",
    "command": "python benchmarks/train.py --env [maze]",
    "seed": 3,
    "steps": 12_000,
    "data": {"name": "some/data-v1", "steps": 10, "fingerprint": "0123456789abcdef"},
    "training_seconds": 123.4,
}


def saved(path, card):
    torch.manual_seed(0)
    layout = TokenLayout(observation_dim=4, action_dim=2, stride=8)
    network = TransformerConfig(width=32, depth=1, heads=2)
    model = TrajectoryModel(TrajectoryModelConfig(layout, (0, 1), tokens=4, model=network))
    DiffusionForcingAgent(model, card=card).save(path)
    return path, sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command on files: exit status, stdout, stderr."""

    def run(*files):
        monkeypatch.setattr("sys.argv", ["weights", *map(str, files)])
        return main(), *capsys.readouterr()

    return run


def test_a_file_is_read_and_shown_as_its_card_says(tmp_path, command):
    path, parameters = saved(tmp_path / "file.safetensors", CARD)
    made = CARD["command"]
    assert read(path) == Weights("tiny", parameters, 3, 12_000, "some/data-v1", "0123456789abcdef", 123.4, made)
    status, out, err = command(path)
    assert (status, err) == (0, "")
    for text in ("tiny", f"{parameters:,}", "12,000", "0123456789ab", "2 min 03 s", made):
        assert text in out
    assert "0123456789abc" not in out


def test_what_a_card_does_not_say_is_not_made_up(tmp_path, command):
    path, parameters = saved(tmp_path / "bare.safetensors", {})
    assert read(path) == Weights("bare", parameters, None, None, None, None, None, None)
    assert "(command unknown)" in command(path)[1]


def test_a_file_that_is_not_weights_is_one_sentence(tmp_path, command):
    (tmp_path / "text.safetensors").write_text("no tensors")
    for name in ("text", "absent"):
        status, out, err = command(tmp_path / f"{name}.safetensors")
        assert (status, out) == (2, "")
        assert err.startswith("error: ") and err.count("\n") == 1 and name in err


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("seed", "three"), ("seed", -1), ("steps", 1.5), ("steps", 2**70), ("training_seconds", "long"), ("command", ["rm"]),
        ("name", 7), ("data", "some/data"), ("data", {"fingerprint": 1}), ("recipe", []), ("curve", [{"step": "x"}]),
        ("seeds", [None]), ("score", "high"), ("hardware", 3), ("hardware", {"threads": "two"}), ("metrics", {"loss": "low"}),
    ],
)  # fmt: skip
def test_a_card_of_wrong_types_is_one_sentence(tmp_path, command, part, value):
    path, _ = saved(tmp_path / "file.safetensors", CARD)
    tensors, header = load_checkpoint(path)
    save_checkpoint(path, tensors, header | {"card": header["card"] | {part: value}})
    status, out, err = command(path)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 320
    assert "file.safetensors" in err and f"card.{part}" in err


@pytest.mark.parametrize("part", ["name", "command"])
def test_what_a_card_says_cannot_steer_the_terminal(tmp_path, command, part):
    path, _ = saved(tmp_path / "file.safetensors", CARD | {part: "\x1b[2J\x1b]0;title\x07\r\u202ename"})
    status, out, _ = command(path)
    assert status == 0 and "\\x1b[2J" in out
    assert all(c.isprintable() or c == "\n" for c in out)
    strange = tmp_path / "\x1b[31mred.safetensors"
    strange.write_text("no tensors")
    status, _, err = command(strange)
    assert status == 2 and err.count("\n") == 1 and err.strip().isprintable()


def test_a_terminal_without_the_letters_of_a_name_still_shows_the_table(tmp_path, monkeypatch):
    path, _ = saved(tmp_path / "file.safetensors", CARD | {"name": "größe"})
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main([str(path)]) == 0 and b"gr??e" in terminal.buffer.getvalue()


def test_paths_that_are_no_files_are_one_sentence(tmp_path, command):
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "circle.zip").symlink_to(tmp_path / "circle.zip")
    (tmp_path / "folder.zip").mkdir()
    for path in (*tmp_path.iterdir(), "/dev/zero"):
        status, out, err = command(path)
        assert (status, out) == (2, "")
        assert err.startswith("error: ") and err.count("\n") == 1 and str(path) in err


def test_shipped_weights_say_where_they_come_from():
    for weights in map(read, pretrained_files()):
        assert None not in (weights.seed, weights.steps, weights.data, weights.training_seconds)
        if weights.data in TASKS:  # learned online, from no recorded data
            assert weights.fingerprint is None
        else:
            assert weights.fingerprint is not None and len(weights.fingerprint) == 64
        assert weights.command is not None and weights.command.startswith("python benchmarks/train.py --env ")
