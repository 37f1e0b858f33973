import json
import os
import struct

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dfplan.checkpoint import CheckpointError, load_checkpoint, load_into, save_checkpoint
from dfplan.whole_files import remove_partial_files

TENSORS = {
    "weight": torch.arange(12.0).reshape(3, 4),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "count": torch.tensor(7, dtype=torch.int64),
    "empty": torch.zeros(0, 5),
}
HEADER = {"kind": "test", "nested": {"rate": 0.1, "list": [1, 2, None]}, "name": "größe"}


def rewrite_header(path, change):
    """Change the JSON head of a safetensors file by hand."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + length])
    change(head["__metadata__"])
    changed = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(changed)) + changed + data[8 + length :])


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "new" / "folder" / "model.safetensors"
    save_checkpoint(path, TENSORS, HEADER)
    tensors, header = load_checkpoint(path)
    assert header == HEADER
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert torch.equal(tensors[name], tensor)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_equal_contents_give_equal_bytes(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    save_checkpoint(one, TENSORS, HEADER)
    save_checkpoint(other, dict(reversed(TENSORS.items())), dict(reversed(HEADER.items())))
    assert one.read_bytes() == other.read_bytes()


def test_loaded_tensors_do_not_depend_on_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, TENSORS, HEADER)
    tensors, _ = load_checkpoint(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(tensors["weight"], TENSORS["weight"])


def test_views_and_shared_memory_are_saved(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    save_checkpoint(tmp_path / "m", {"transposed": base.T, "column": base[:, 1], "base": base}, {})
    tensors, _ = load_checkpoint(tmp_path / "m")
    assert torch.equal(tensors["transposed"], base.T)
    assert torch.equal(tensors["column"], base[:, 1])


@pytest.mark.parametrize("header", [{"loss": float("nan")}, {"path": object()}])
def test_a_header_that_is_not_json_is_refused_and_nothing_written(tmp_path, header):
    with pytest.raises((TypeError, ValueError)):
        save_checkpoint(tmp_path / "model.safetensors", TENSORS, header)
    assert not list(tmp_path.iterdir())


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no checkpoint file .*nowhere"):
        load_checkpoint(tmp_path / "nowhere.safetensors")
    with pytest.raises(CheckpointError, match="there is no checkpoint file"):
        load_checkpoint(tmp_path)


def test_truncated_at_any_length(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, TENSORS, HEADER)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"model\.safetensors is not a whole safetensors file"):
            load_checkpoint(path)


def test_a_file_of_another_kind(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"model\.pt is not a whole safetensors file"):
        load_checkpoint(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_safetensors_file_of_another_program(tmp_path, metadata):
    path = tmp_path / "foreign.safetensors"
    save_file(TENSORS, path, metadata=metadata)
    with pytest.raises(CheckpointError, match=r"foreign\.safetensors is a safetensors file, but not one of dfplan"):
        load_checkpoint(path)


def test_a_newer_format(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, TENSORS, HEADER)
    rewrite_header(path, lambda meta: meta.update(dfplan=json.dumps({"format": 99, "header": {}})))
    with pytest.raises(CheckpointError, match=r"has checkpoint format 99.* install a newer dfplan"):
        load_checkpoint(path)


@pytest.mark.parametrize("entry", ["{", "[]", "{}", '{"format": "1", "header": {}}', '{"format": 1, "header": 3}'])
def test_a_damaged_header(tmp_path, entry):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, TENSORS, HEADER)
    rewrite_header(path, lambda meta: meta.update(dfplan=entry))
    with pytest.raises(CheckpointError, match=r"header of .*model\.safetensors"):
        load_checkpoint(path)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, function):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, TENSORS, {"version": 1})

    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, TENSORS, {"version": 2})
    monkeypatch.undo()
    assert load_checkpoint(path)[1] == {"version": 1}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_writer_that_dies_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, TENSORS, {"version": 1})
    child = os.fork()
    if child == 0:  # die where the new file is written but not yet in place, without any cleaning up
        os.replace = lambda *args: os._exit(9)
        save_checkpoint(path, TENSORS, {"version": 2})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert load_checkpoint(path)[1] == {"version": 1}
    assert len(list(tmp_path.iterdir())) == 2
    remove_partial_files(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_load_into_copies_every_tensor():
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    load_into(target, source.state_dict(), "a.safetensors")
    assert torch.equal(source.weight, target.weight)
    assert torch.equal(source.bias, target.bias)


def test_load_into_names_what_does_not_fit():
    module = nn.Linear(3, 2)
    before = module.bias.detach().clone()
    with pytest.raises(CheckpointError) as caught:
        load_into(module, {"weight": torch.zeros(2, 4), "other": torch.zeros(1)}, "a.safetensors")
    sentence = str(caught.value)
    assert "the tensors of a.safetensors do not fit Linear" in sentence
    assert "1 missing (bias)" in sentence
    assert "1 of another shape (weight (2, 4) instead of (2, 3))" in sentence
    assert "1 unknown (other)" in sentence
    assert torch.equal(module.bias, before)


def test_load_into_names_only_the_first_ones():
    with pytest.raises(CheckpointError, match=r"6 missing \(0\.weight, 0\.bias, 1\.weight, \.\.\.\)"):
        load_into(nn.Sequential(*(nn.Linear(2, 2) for _ in range(3))), {}, "a.safetensors")
