import pytest
import torch

from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.agents.weights import Weights, main, read, shipped
from dfplan.envs.tasks import TASKS
from dfplan.models import TransformerConfig
from dfplan.tokens import TokenLayout
from dfplan.trajectory_model import TrajectoryModel, TrajectoryModelConfig

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
    model = TrajectoryModel(TrajectoryModelConfig(layout, tokens=4, model=network))
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


def test_shipped_weights_say_where_they_come_from():
    for weights in shipped():
        assert None not in (weights.seed, weights.steps, weights.data, weights.training_seconds)
        if weights.data in TASKS:  # learned online, from no recorded data
            assert weights.fingerprint is None
        else:
            assert weights.fingerprint is not None and len(weights.fingerprint) == 64
        assert weights.command is not None and weights.command.startswith("python benchmarks/train.py --env maze2d-")
