"""Files that lie about themselves: links, sizes, types. Each is refused by one sentence that names it."""

import fcntl
import io
import os
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from dfplan.data import array_files
from dfplan.data.readers import load, load_d4rl_hdf5, load_npz

STEPS = 20


def content() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.standard_normal((STEPS, 4), dtype=np.float32),
        "actions": rng.standard_normal((STEPS, 2), dtype=np.float32),
        "rewards": np.ones(STEPS, np.float32),
        "terminals": np.arange(STEPS) % 5 == 4,
    }


@pytest.fixture
def path(tmp_path) -> Path:
    """A D4RL file that is as it should be."""
    path = tmp_path / "data.hdf5"
    with h5py.File(path, "w") as file:
        for key, value in content().items():
            file[key] = value
    assert len(load(path)) == STEPS
    return path


def refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value) and len(str(raised.value)) < 300


def claim(file: h5py.File, **how: object) -> None:
    """A dataset of 10^12 numbers of which none is in the file."""
    file.create_dataset("observations", shape=(10**12, 4), dtype="f4", **how)


@pytest.mark.parametrize("how", [{}, {"chunks": (100, 4), "compression": "gzip"}], ids=["contiguous", "in chunks"])
def test_sizes_that_a_file_has_no_room_for_are_refused_before_anything_is_allocated(path, how):
    with h5py.File(path, "a") as file:
        del file["observations"]
        claim(file, **how)
    refused(path, r"'observations' would take 14,901\.2 GiB, more than a file of [\d,]+ bytes can hold")


def test_a_chunk_counts_with_all_that_it_unfolds_to(path):
    with h5py.File(path, "a") as file:
        del file["rewards"]
        file.create_dataset(
            "rewards", shape=(STEPS,), maxshape=(None,), chunks=(2**29,), dtype="f4", compression="gzip"
        )
    refused(path, r"'rewards' would take 2\.0 GiB")


LINKS = {
    "in a circle": {"observations": h5py.SoftLink("/b"), "b": h5py.SoftLink("/observations")},
    "to nowhere": {"observations": h5py.SoftLink("/nowhere")},
    "to another file": {"observations": h5py.ExternalLink("/dev/zero", "/observations")},
    "for a group": {"infos": h5py.ExternalLink("pipe", "/")},
}


@pytest.mark.parametrize("links", LINKS.values(), ids=LINKS)
def test_links_are_refused_and_not_followed(path, links):
    os.mkfifo(path.parent / "pipe")  # to open it would take for ever
    with h5py.File(path, "a") as file:
        for key, link in links.items():
            if key in file:
                del file[key]
            file[key] = link
    refused(path, f"'{next(iter(links))}(/goal)?' is a link; expected the data themselves")


def test_numbers_that_lie_in_other_files_are_refused(path):
    with h5py.File(path, "a") as file:
        del file["rewards"], file["actions"]
        file.create_dataset("actions", shape=(STEPS, 2), dtype="f4", external=[("/dev/zero", 0, STEPS * 8)])
        layout = h5py.VirtualLayout((STEPS,), "f4")
        layout[:] = h5py.VirtualSource("other.hdf5", "rewards", (STEPS,))
        file.create_virtual_dataset("rewards", layout)
    refused(path, "the numbers of 'actions' lie in other files")
    with h5py.File(path, "a") as file:
        del file["actions"]
        file["actions"] = content()["actions"]
    refused(path, "the numbers of 'rewards' lie in other files")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([b"text"] * STEPS), r"'rewards' holds \|S4; expected an array of numbers"),
        (["text"] * STEPS, "'rewards' holds object; expected an array of numbers"),
        (np.zeros(STEPS, [("a", "f4")]), "'rewards' holds .* expected an array of numbers"),
        (h5py.Empty("f4"), r"'rewards' has shape \(\)"),
        (np.full(STEPS, 1e300), "'rewards' holds a number beyond the range of float32, first at step 0"),
    ],
)
def test_other_things_than_float32_numbers_are_refused(path, value, message):
    with h5py.File(path, "a") as file:
        del file["rewards"]
        file["rewards"] = value
    refused(path, message)


def test_a_group_in_the_place_of_an_array_is_no_array(path):
    with h5py.File(path, "a") as file:
        del file["rewards"]
        file["rewards/inside"] = np.ones(STEPS)
    refused(path, "the key 'rewards' is missing")


def test_a_file_that_another_program_holds_open_is_not_called_damaged(path):
    with open(path, "rb+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # as HDF5 itself locks a file that is being written
        refused(path, "another program has the file open and holds a lock on it; close it there and try again")
    assert len(load(path)) == STEPS


@pytest.mark.parametrize("suffix", [".hdf5", ".npz"])
def test_pipes_folders_and_circles_of_links_are_refused_at_once(tmp_path, suffix):
    pipe, folder, circle = (tmp_path / f"{name}{suffix}" for name in ("pipe", "folder", "circle"))
    os.mkfifo(pipe)
    folder.mkdir()
    circle.symlink_to(circle)
    refused(pipe, "pipe or a device")
    refused(folder, "it is a folder")
    refused(circle, "symbolic links")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load(tmp_path / f"nowhere{suffix}")


# npz


def drawn_out() -> dict[str, np.ndarray]:
    """Rows as OGBench's files hold them: no rewards, and each episode's last row is its last observation."""
    return {key: value for key, value in content().items() if key != "rewards"}


def regular(**other: np.ndarray) -> dict[str, np.ndarray]:
    """Steps with their next observations, as OGBench's loader gives them."""
    given = content()
    following = given["observations"] + 1
    return given | {"next_observations": following} | other


def test_the_last_row_of_an_episode_in_an_npz_file_is_its_last_observation(tmp_path):
    path = tmp_path / "data.NPZ"
    given = drawn_out()
    with open(path, "wb") as file:
        np.savez_compressed(file, **given)
    data, steps = load(path), ~given["terminals"]
    np.testing.assert_array_equal(data.observations, given["observations"][steps])
    np.testing.assert_array_equal(data.actions, given["actions"][steps])
    np.testing.assert_array_equal(data.last_observations, given["observations"][~steps])
    np.testing.assert_array_equal(data.episode_starts, [0, 4, 8, 12])
    assert not data.terminations.any() and not data.rewards.any() and data.truncations.sum() == 4
    assert load_npz(path).fingerprint == load(str(path)).fingerprint == data.fingerprint


def test_an_npz_file_in_ogbenchs_compact_form_is_the_same(tmp_path):
    given = drawn_out()
    np.savez(tmp_path / "raw.npz", **given, qpos=np.zeros((STEPS, 9)))
    ends = given["terminals"].astype(np.float32)
    compact = given | {"valids": 1 - ends, "terminals": np.minimum(ends + np.append(ends[1:], 1), 1)}
    np.savez(tmp_path / "compact.npz", **compact)
    raw, again = load(tmp_path / "raw.npz"), load(tmp_path / "compact.npz")
    assert raw.fingerprint == again.fingerprint
    np.testing.assert_array_equal(raw.last_observations, again.last_observations)


def test_an_npz_file_that_stops_within_an_episode_ends_it_there(tmp_path):
    np.savez(tmp_path / "cut.npz", **(drawn_out() | {"terminals": np.arange(STEPS) == 11}))
    data = load(tmp_path / "cut.npz")
    np.testing.assert_array_equal(data.episode_starts, [0, 11])
    np.testing.assert_array_equal(data.last_observations, content()["observations"][[11, 19]])


def test_an_npz_file_with_next_observations_holds_steps_only_and_its_masks_end_the_task(tmp_path):
    masks = 1 - (np.arange(STEPS) == 7).astype(np.float32)
    np.savez(tmp_path / "regular.npz", **regular(masks=masks))
    data = load(tmp_path / "regular.npz")
    assert len(data) == STEPS and np.flatnonzero(data.terminations).tolist() == [7]
    np.testing.assert_array_equal(data.episode_starts, [0, 5, 10, 15])
    np.testing.assert_array_equal(data.last_observations, regular()["next_observations"][4::5])


def test_terminals_beside_rewards_are_terminations_as_in_d4rl(tmp_path):
    timeouts = np.arange(STEPS) == 2
    np.savez(tmp_path / "d4rl.npz", **regular(timeouts=timeouts))
    data = load(tmp_path / "d4rl.npz")
    assert len(data) == STEPS and np.flatnonzero(data.terminations).tolist() == [4, 9, 14, 19]
    assert data.episode_starts.tolist() == [0, 3, 5, 10, 15] and np.flatnonzero(data.truncations).tolist() == [2]
    np.testing.assert_array_equal(data.last_observations, regular()["next_observations"][data.episode_ends - 1])


def test_d4rl_files_with_next_observations_keep_the_last_ones(path):
    with h5py.File(path, "a") as file:
        file["next_observations"] = regular()["next_observations"]
    data = load_d4rl_hdf5(path)
    np.testing.assert_array_equal(data.last_observations, regular()["next_observations"][4::5])
    assert data.terminations.sum() == 4


def members(path: Path, **parts: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, value in parts.items():
            archive.writestr(f"{key}.npy", value)
    return path


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


NPY = {
    "a claim of 10^12": (
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4)}"),
        r"'observations' would take 14,901\.2 GiB",
    ),
    "a shape below zero": (
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}"),
        r"'observations' has shape \(-1, 4\)",
    ),
    "brackets without end": (header("(" * 9000), "'observations' cannot be read; the file is truncated or damaged"),
    "code": (header("__import__('os').abort()"), "'observations' cannot be read"),
    "nothing": (b"", "'observations' cannot be read"),
    "objects, which are pickles": (
        npy(np.full((20, 4), None)),
        "'observations' holds object; expected an array of numbers",
    ),
    "too few numbers": (npy(np.zeros((20, 4), np.float32))[:-8], "'observations' cannot be read"),
    "too many axes": (npy(np.zeros((20, 4, 1), np.float32)), r"'observations' has shape \(20, 4, 1\)"),
    "NaN": (npy(np.full((20, 4), np.nan)), "'observations' holds NaN or infinity, first at step 0"),
}


@pytest.mark.parametrize(("array", "message"), NPY.values(), ids=NPY)
def test_a_bad_array_in_an_npz_file_is_named(tmp_path, array, message):
    refused(members(tmp_path / "bad.npz", observations=array), message)


def test_a_zip_that_unfolds_to_more_than_it_has_room_for_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(array_files, "ALWAYS", 2**20)
    zeros = npy(np.zeros((2**20, 4), np.float32))
    path = members(tmp_path / "bomb.npz", observations=zeros)
    assert path.stat().st_size < len(zeros) / 500
    refused(path, "'observations' would take 0.0 GiB, more than a file of")


def test_a_truncated_or_foreign_npz_file_is_named(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **content())
    for bytes_left in (path.read_bytes()[:-200], b"not a zip", b""):
        path.write_bytes(bytes_left)
        refused(path, "not a whole npz file; it is truncated or of another kind")
    np.savez(path, **{key: value for key, value in content().items() if key != "terminals"})
    refused(path, "no key says where episodes end; expected one of terminals")
    np.savez(path, **(drawn_out() | {"terminals": np.arange(STEPS) > 17}))
    refused(path, "an episode needs a step and a last row")
    np.savez(path, **(content() | {"rewards": np.zeros(19)}))
    refused(path, "the arrays differ in length: .*'rewards': 19")
    np.savez(path, **regular(next_observations=np.zeros((STEPS, 3))))
    refused(path, r"'next_observations' has shape \(20, 3\) but 'observations' \(20, 4\)")
