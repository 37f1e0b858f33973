import json
import os
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dfplan.data.statistics import Normalizer
from dfplan.training import checkpoint
from dfplan.training.checkpoint import CheckpointError, load_checkpoint, load_header, save_checkpoint
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
    checkpoint.load_into(target, source.state_dict(), "a.safetensors")
    assert torch.equal(source.weight, target.weight)
    assert torch.equal(source.bias, target.bias)


def test_load_into_names_what_does_not_fit():
    module = nn.Linear(3, 2)
    before = module.bias.detach().clone()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_into(module, {"weight": torch.zeros(2, 4), "other": torch.zeros(1)}, "a.safetensors")
    sentence = str(caught.value)
    assert "the tensors of a.safetensors do not fit Linear" in sentence
    assert "1 missing (bias)" in sentence
    assert "1 of another shape (weight (2, 4) instead of (2, 3))" in sentence
    assert "1 unknown (other)" in sentence
    assert torch.equal(module.bias, before)


def test_load_into_names_only_the_first_ones():
    with pytest.raises(CheckpointError, match=r"6 missing \(0\.weight, 0\.bias, 1\.weight, \.\.\.\)"):
        checkpoint.load_into(nn.Sequential(*(nn.Linear(2, 2) for _ in range(3))), {}, "a.safetensors")


def without_sha256(path):
    """The file as it was written before there was one."""

    def change(metadata):
        entry = json.loads(metadata["dfplan"])
        del entry["sha256"]
        metadata["dfplan"] = json.dumps(entry)

    rewrite_header(path, change)


def test_every_damage_of_one_byte_is_found_or_harmless(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, TENSORS, HEADER)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            tensors, header = load_checkpoint(path)
        except CheckpointError as error:
            assert str(path) in str(error) and len(str(error)) <= 300
        else:  # white space between the entries of the JSON may change
            assert header == HEADER
            assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def test_a_changed_tensor_or_header_does_not_give_the_sha256(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, TENSORS, HEADER)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_checkpoint(path)
    save_checkpoint(path, TENSORS, HEADER)
    rewrite_header(path, lambda metadata: metadata.update(dfplan=metadata["dfplan"].replace("0.1", "0.9")))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_checkpoint(path)


def test_files_from_before_the_sha256_still_load(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, TENSORS, HEADER)
    without_sha256(path)
    tensors, header = load_checkpoint(path)
    assert header == HEADER and torch.equal(tensors["weight"], TENSORS["weight"])


def test_the_file_is_an_ordinary_safetensors_file(tmp_path):
    save_checkpoint(tmp_path / "model", TENSORS, HEADER)
    assert torch.equal(load_file(tmp_path / "model")["weight"], TENSORS["weight"])


def test_a_header_with_keys_that_json_makes_strings_of_comes_back(tmp_path):
    save_checkpoint(tmp_path / "model", TENSORS, {"table": {10: 1e-7, 9: -0.0, True: 2**80}})
    assert load_checkpoint(tmp_path / "model")[1] == {"table": {"10": 1e-7, "9": 0.0, "true": 2**80}}


NESTED = "[" * 5000 + "]" * 5000


@pytest.mark.parametrize(
    "header",
    ['{"loss": NaN}', '{"loss": 1e999}', f'{{"card": {NESTED}}}', '{"name": "\\ud800"}', f'{{"n": 1{"0" * 5000}}}'],
)
@pytest.mark.parametrize("load", [load_checkpoint, load_header])
def test_a_header_that_no_writer_makes_is_one_sentence(tmp_path, header, load):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, TENSORS, HEADER)
    rewrite_header(path, lambda metadata: metadata.update(dfplan=f'{{"format": 1, "header": {header}}}'))
    with pytest.raises(CheckpointError, match=r"header of .*model\.safetensors cannot be read"):
        load(path)


def test_a_header_that_could_not_be_read_again_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="recursion limit"):
        save_checkpoint(tmp_path / "model", TENSORS, {"card": json.loads("[" * 300 + "]" * 300)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("load", [load_checkpoint, load_header])
def test_paths_that_are_no_ordinary_files_are_one_sentence_and_are_not_read(tmp_path, load):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    paths = {
        tmp_path / "pipe": "no ordinary file",
        "/dev/zero": "no ordinary file",
        tmp_path: "it is a folder",
        tmp_path / "circle": "symbolic links",
        tmp_path / "dangling": "there is no checkpoint file",
        tmp_path / ("n" * 300): "File name too long",
        "model\0": "null",
    }
    for path, reason in paths.items():
        with pytest.raises(CheckpointError, match=reason) as caught:
            load(path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300


@pytest.mark.parametrize("load", [load_checkpoint, load_header])
@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_a_head_that_lies_about_its_length(tmp_path, length, load):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, TENSORS, HEADER)
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a whole safetensors file"):
        load(path)


@pytest.mark.parametrize(
    "index", ["[]", "{}", "{", '{"w": 1}', '{"w": {"dtype": "F32", "shape": [1], "data_offsets": "x"}}', NESTED]
)
@pytest.mark.parametrize("load", [load_checkpoint, load_header])
def test_a_head_that_is_no_index_of_tensors(tmp_path, index, load):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(index)) + index.encode())
    with pytest.raises(CheckpointError, match=r"model\.safetensors is "):
        load(path)


def test_tensors_of_more_numbers_than_the_file_has_bytes(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, TENSORS, HEADER)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head = data[8 : 8 + length].replace(b"[3,4]", b"[3,4000000000]")
    path.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + length :])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a whole safetensors file"):
        load_checkpoint(path)


def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, TENSORS, HEADER)
    looks, real = [], os.fstat

    def fstat(number):
        looks.append(number)
        if len(looks) == 3:  # after the reading
            with open(path, "ab") as file:
                file.write(b"more")
        return real(number)

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(CheckpointError, match=r"model\.safetensors was changed by another program while it was read"):
        load_checkpoint(path)


def test_a_file_that_is_replaced_while_it_is_read_is_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, TENSORS, {"version": 1})
    real = os.fstat

    def fstat(number):
        monkeypatch.undo()
        save_checkpoint(path, {}, {"version": 2})
        return real(number)

    monkeypatch.setattr(os, "fstat", fstat)
    tensors, header = load_checkpoint(path)
    assert header == {"version": 1} and torch.equal(tensors["weight"], TENSORS["weight"])


def test_what_a_file_says_cannot_steer_a_terminal_or_fill_it():
    sentence = str(CheckpointError("weights \x1b[2J\n" + "x" * 1000 + " end"))
    assert sentence.isprintable() and len(sentence) <= 300
    assert sentence.startswith("weights \\x1b[2J\\n") and sentence.endswith(" end")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.observation = Normalizer(torch.zeros(2), torch.ones(2))
        self.layer = nn.Linear(2, 1)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))


@pytest.mark.parametrize(
    ("name", "tensor", "sentence"),
    [
        ("layer.weight", torch.tensor([[1.0, float("nan")]]), r"1 with NaN or infinity \(layer.weight\)"),
        ("layer.bias", torch.tensor([float("inf")]), "NaN or infinity"),
        ("layer.bias", torch.tensor([1e300], dtype=torch.float64), "NaN or infinity"),
        ("layer.weight", torch.ones(1, 2, dtype=torch.int32), "layer.weight torch.int32 instead of torch.float32"),
        ("layer.weight", torch.ones(1, 2, dtype=torch.bool), "another dtype"),
        ("updates", torch.zeros(()), "updates torch.float32 instead of torch.int64"),
        ("updates", torch.zeros((), dtype=torch.int32), "another dtype"),
        ("observation.std", torch.tensor([1.0, 0.0]), "a number in observation.std is not positive"),
        ("observation.std", torch.tensor([1.0, -1.0]), "not positive"),
        ("observation.bound", torch.tensor(0.0), "a number in observation.bound is not positive"),
        ("observation.mean", torch.tensor([0.0, float("nan")]), "NaN or infinity"),
    ],
)
def test_numbers_that_no_model_acts_by_are_refused_and_nothing_is_copied(name, tensor, sentence):
    module = Model()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(CheckpointError, match=sentence) as caught:
        checkpoint.load_into(module, module.state_dict() | {name: tensor}, "a.safetensors")
    assert "a.safetensors" in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_weights_rounded_to_another_precision_are_taken():
    module = nn.Linear(3, 2)
    checkpoint.load_into(module, {"weight": torch.ones(2, 3).half(), "bias": torch.ones(2).double()}, "a.safetensors")
    assert module.weight.dtype == module.bias.dtype == torch.float32
    assert torch.equal(module.weight, torch.ones(2, 3))


def test_a_normalizer_itself_is_checked_too():
    with pytest.raises(CheckpointError, match="a number in std is not positive"):
        normalizer = Normalizer([0.0], [1.0])
        checkpoint.load_into(normalizer, normalizer.state_dict() | {"std": torch.zeros(1)}, "a.safetensors")


def test_tensors_are_compared_by_name_shape_and_dtype():
    expected = {"a": torch.zeros(2), "b": torch.zeros(1), "c": torch.zeros(1)}
    checkpoint.require_tensors(expected, dict(expected), "they do not fit")
    given = {"a": torch.zeros(3), "b": torch.zeros(1, dtype=torch.int64), "d": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.require_tensors(expected, given, "they do not fit")
    assert str(caught.value) == (
        "they do not fit: 1 missing (c), 1 of another shape (a (3,) instead of (2,)), "
        "1 of another dtype (b torch.int64 instead of torch.float32), 1 unknown (d)"
    )
    checkpoint.require_tensors({"b": expected["b"]}, {"b": given["b"]}, "they do not fit", dtypes=False)


def test_whole_numbers_are_finite():
    checkpoint.require_finite({"count": torch.tensor(3), "empty": torch.zeros(0)}, "no weights")
