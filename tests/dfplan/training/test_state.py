"""A checkpoint of another run, of another module, or damaged: refused with one sentence, nothing taken from it."""

import shutil
from dataclasses import replace

import pytest
import torch
from regression import CONFIG, PowerFailureError, Regression, assert_same_run, batch_until, fail, run
from torch import nn

from dfplan.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from dfplan.training.loop import require_trainable


def test_another_config_is_refused_with_the_differing_fields(reference):
    before = (reference / "last.safetensors").read_bytes()
    with pytest.raises(ValueError, match="holds another run") as caught:
        run(reference, replace(CONFIG, steps=61, learning_rate=0.5))
    sentence = str(caught.value)
    assert "config.steps is 60 there and 61 here" in sentence
    assert "config.learning_rate is 0.003 there and 0.5 here" in sentence
    assert "batch_size" not in sentence
    assert "choose another folder" in sentence
    with pytest.raises(ValueError, match=r"header\.data is None there and 'abc' here"):
        run(reference, header={"data": "abc"})
    assert (reference / "last.safetensors").read_bytes() == before


def test_a_run_with_a_constant_learning_rate_can_be_lengthened(tmp_path):
    """The longer run is what it would have been from the start."""
    config = replace(CONFIG, steps=30, schedule="constant")
    run(tmp_path / "whole", replace(config, steps=45))
    run(tmp_path / "longer", config)
    assert run(tmp_path / "longer", replace(config, steps=45)).steps == 45
    assert_same_run(tmp_path / "longer", tmp_path / "whole")
    with pytest.raises(ValueError, match=r"config.steps is 45 there and 44 here \(45 are done\)"):
        run(tmp_path / "longer", replace(config, steps=44))


def test_a_run_along_a_cosine_cannot_be_lengthened_and_says_so_before_any_data(reference):
    before = (reference / "last.safetensors").read_bytes()
    longer = replace(CONFIG, steps=120)
    sentence = (
        r"config.steps is 60 there and 120 here \(a cosine learning rate ends at a step that is set at the start\)"
    )
    with pytest.raises(ValueError, match=sentence):
        require_trainable(reference, longer, {})
    with pytest.raises(ValueError, match=sentence):
        run(reference, longer)
    assert (reference / "last.safetensors").read_bytes() == before


def test_what_is_known_before_the_data_is_compared_before_the_data(tmp_path):
    run(tmp_path, replace(CONFIG, steps=5), header={"model": {"width": 3}, "data": "abc"})
    listing = sorted(tmp_path.iterdir())
    require_trainable(tmp_path, replace(CONFIG, steps=5), {"model": {"width": 3}})
    with pytest.raises(ValueError, match=r"header\.model\.width is 3 there and 4 here"):
        require_trainable(tmp_path, replace(CONFIG, steps=5), {"model": {"width": 4}})
    with pytest.raises(ValueError, match="devices is 1 there and 2 here"):
        require_trainable(tmp_path, replace(CONFIG, steps=5), {}, devices=2)
    require_trainable(tmp_path / "new", CONFIG, {})
    assert sorted(tmp_path.iterdir()) == listing


def test_many_differences_make_one_short_sentence(reference):
    other = replace(CONFIG, steps=61, batch_size=3, seed=9, weight_decay=0.5, warmup_steps=3, ema_decay=0.2)
    with pytest.raises(ValueError, match=r"and 5 more; choose") as caught:
        run(reference, other, header={"note": "x" * 1000})
    assert len(str(caught.value)) - len(str(reference)) < 250


def test_how_often_to_write_may_change(tmp_path, reference):
    with pytest.raises(PowerFailureError):
        run(tmp_path, source=batch_until(30, fail))
    run(tmp_path, replace(CONFIG, checkpoint_every=20, log_every=20))
    one, other = (load_checkpoint(folder / "last.safetensors")[0] for folder in (tmp_path, reference))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_module_of_another_shape_is_refused(reference):
    module = Regression()
    module.net[0] = nn.Linear(3, 8)
    with pytest.raises(CheckpointError, match=r"do not fit Regression: .*net\.0\.weight"):
        run(reference, module=module)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    save_checkpoint(tmp_path / "last.safetensors", {"weight": torch.zeros(1)}, {"kind": "agent"})
    with pytest.raises(CheckpointError, match="is not the checkpoint of a training run"):
        run(tmp_path)


def damaged(folder, reference, change):
    """A copy of the reference run, its checkpoint's tensors and header changed."""
    shutil.copytree(reference, folder)
    tensors, header = load_checkpoint(folder / "last.safetensors")
    change(tensors, header)
    save_checkpoint(folder / "last.safetensors", tensors, header)
    return folder


MOMENT = "optimizer/net.0.weight/exp_avg"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (MOMENT, torch.zeros(1)),  # a shape that crashed the fused optimizer
        (MOMENT, torch.zeros(0)),
        (MOMENT, torch.zeros(3, 32)),
        (MOMENT, torch.zeros(32, 3, dtype=torch.int32)),
        (MOMENT, torch.zeros(32, 3, dtype=torch.float64)),
        (MOMENT, None),
        ("optimizer/net.0.weight/step", torch.zeros(1)),
        ("optimizer/net.9.weight/exp_avg", torch.zeros(1)),
        ("weights/net.0.bias", torch.zeros(32, dtype=torch.int32)),
        ("weights/net.0.bias", None),
        ("ema/net.0.bias", torch.zeros(1)),
        ("ema/net.0.bias", torch.zeros(32, dtype=torch.float16)),
        ("record/loss", torch.zeros(2)),
        ("elsewhere/net.0.bias", torch.zeros(1)),
        ("noslash", torch.zeros(1)),
    ],
)
def test_every_tensor_of_a_checkpoint_is_checked(tmp_path, reference, name, value):
    def change(tensors, header):
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value

    folder = damaged(tmp_path / "run", reference, change)
    before = (folder / "last.safetensors").read_bytes()
    module = Regression(seed=3)
    weights = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"the tensors of .*last.safetensors do not fit Regression: .*{name}"):
        run(folder, replace(CONFIG, log_every=7), module=module)
    assert (folder / "last.safetensors").read_bytes() == before
    assert all(torch.equal(module.state_dict()[key], tensor) for key, tensor in weights.items())


def test_a_checkpoint_without_its_optimizer_is_refused(tmp_path, reference):
    def change(tensors, header):
        for name in [name for name in tensors if name.startswith("optimizer/")]:
            del tensors[name]

    with pytest.raises(CheckpointError, match=r"18 missing \(optimizer/net.0.weight/step"):
        run(damaged(tmp_path / "run", reference, change))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step", "x"),
        ("step", None),
        ("step", -1),
        ("step", 2.5),
        ("step", True),
        ("seconds", "long"),
        ("seconds", -1.0),
        ("metrics", [1]),
        ("metrics", {"loss": "small"}),
        ("curve", {"step": 1}),
        ("curve", [3]),
    ],
)
def test_every_part_of_a_checkpoints_header_is_checked(tmp_path, reference, field, value):
    folder = damaged(tmp_path / "run", reference, lambda tensors, header: header.update({field: value}))
    for call in (lambda: run(folder), lambda: require_trainable(folder, CONFIG, {})):
        with pytest.raises(
            CheckpointError, match=rf"the header of .*last.safetensors is damaged: Progress: {field}"
        ) as caught:
            call()
        assert "\n" not in str(caught.value) and len(str(caught.value)) - len(str(folder)) < 200


@pytest.mark.parametrize("field", ["step", "seconds", "metrics"])
def test_a_part_of_a_header_that_is_not_there_is_named(tmp_path, reference, field):
    folder = damaged(tmp_path / "run", reference, lambda tensors, header: header.pop(field))
    with pytest.raises(CheckpointError, match=rf"the header of .* is damaged: .*'{field}'"):
        run(folder)


@pytest.mark.parametrize("part", ["config", "devices", "header"])
@pytest.mark.parametrize("value", [None, "x", [1, 2], {"steps": {"deep": 1}}])
def test_a_header_that_describes_no_run_is_another_run(tmp_path, reference, part, value):
    folder = damaged(tmp_path / "run", reference, lambda tensors, header: header.update({part: value}))
    with pytest.raises(ValueError, match="holds another run"):
        run(folder, header={"data": "abc"})
