import dataclasses
import fcntl
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector.episode_buffer import EpisodeBuffer

from dfplan.data.features import Features
from dfplan.data.pictures import Pictured
from dfplan.data.readers import encoded, load, load_d4rl, load_d4rl_hdf5, load_minari

ACTIONS = gym.spaces.Box(-1, 1, (2,), np.float32)
OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (4,), np.float64)


def episode(steps: int, rng: np.random.Generator, goals: bool = False) -> EpisodeBuffer:
    """An episode of `steps` actions; with `goals`, observations as goal-conditioned environments give them."""
    states = rng.standard_normal((steps + 1, 4))
    places = rng.standard_normal((steps + 1, 2))
    return EpisodeBuffer(
        observations={"observation": states, "achieved_goal": places, "desired_goal": places} if goals else states,
        actions=rng.standard_normal((steps, 2)).astype(np.float32),
        rewards=rng.standard_normal(steps),
        terminations=flags(steps, steps - 1) & (steps == 2),
        truncations=flags(steps, steps - 1) & (steps != 2),
        infos={"goal": np.zeros((steps + 1, 2))},
    )


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    """An empty local Minari store."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


PLACE = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
WITH_GOALS = gym.spaces.Dict(observation=OBSERVATIONS, achieved_goal=PLACE, desired_goal=PLACE)


def collect(dataset_id, episodes: list[EpisodeBuffer], space=OBSERVATIONS, data_format: str = "hdf5") -> None:
    with pytest.warns(UserWarning):  # author, code link and the like are not given
        minari.create_dataset_from_buffers(
            dataset_id, episodes, observation_space=space, action_space=ACTIONS, data_format=data_format
        )


def observed(source: EpisodeBuffer) -> np.ndarray:
    """(T + 1, D): the observation, and the achieved goal after it, if there is one."""
    seen = source.observations
    return np.float32(np.hstack([seen["observation"], seen["achieved_goal"]]) if isinstance(seen, dict) else seen)


def test_minari_episodes_with_pictures_wait_for_an_encoder(store):
    rng, lengths = np.random.default_rng(0), (3, 2)
    eyes = [rng.integers(0, 256, (n + 1, 8, 6, 3), np.uint8) for n in lengths]
    episodes = [
        EpisodeBuffer(
            observations={"eye": eye, "arm": rng.standard_normal((n + 1, 4))},
            actions=np.zeros((n, 2), np.float32),
            rewards=np.zeros(n),
            terminations=np.zeros(n, bool),
            truncations=flags(n, n - 1),
        )
        for n, eye in zip(lengths, eyes, strict=True)
    ]
    collect("here/eye-v0", episodes, gym.spaces.Dict(eye=gym.spaces.Box(0, 255, (8, 6, 3), np.uint8), arm=OBSERVATIONS))
    data = load_minari("here/eye-v0")
    assert isinstance(data, Pictured) and len(data) == 5 and data.shapes == {"eye": (8, 6, 3)}
    assert np.array_equal(data.pictures("eye"), np.concatenate([eye[:-1] for eye in eyes]))
    numbers = encoded(data, lambda key, pictures: pictures.reshape(len(pictures), -1)[:, :3].astype(np.float32))
    assert numbers.features.keys == ("arm", "eye") and numbers.name == "here/eye-v0"
    assert np.array_equal(numbers.observations[:, 4:], data.pictures("eye").reshape(5, -1)[:, :3])
    assert np.array_equal(numbers.last_observations[:, 4:], [eye[-1].ravel()[:3] for eye in eyes])
    assert numbers.episode_starts.tolist() == [0, 3] and numbers.truncations.tolist() == [
        False,
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("goals", [False, True])
def test_minari_episodes_are_laid_end_to_end_with_all_that_is_recorded(store, goals):
    rng = np.random.default_rng(0)
    lengths = (5, 1, 12, 3, 2, 2, 2, 2, 2, 2, 4)  # eleven: episode_10 comes after episode_9, not after episode_1
    episodes = [episode(steps, rng, goals) for steps in lengths]
    collect("here/maze-v1", episodes, WITH_GOALS if goals else OBSERVATIONS)
    trajectories = load_minari("here/maze-v1")
    assert trajectories.name == "here/maze-v1"
    np.testing.assert_array_equal(trajectories.episode_starts, [0, 5, 6, 18, 21, 23, 25, 27, 29, 31, 33])
    for start, end, source in zip(trajectories.episode_starts, trajectories.episode_ends, episodes, strict=True):
        np.testing.assert_array_equal(trajectories.observations[start:end], observed(source)[:-1])
        np.testing.assert_array_equal(trajectories.actions[start:end], source.actions)
        np.testing.assert_array_equal(trajectories.rewards[start:end], source.rewards.astype(np.float32))
        np.testing.assert_array_equal(trajectories.terminations[start:end], source.terminations)
        np.testing.assert_array_equal(trajectories.truncations[start:end], source.truncations)
    np.testing.assert_array_equal(trajectories.last_observations, [observed(e)[-1] for e in episodes])
    features = Features(("observation", "achieved_goal"), (), "", "desired_goal", (4, 5), (4, 2))
    assert trajectories.features == (features if goals else Features())
    assert trajectories.terminations.sum() == 6


def minari_file(store: Path) -> Path:
    collect("here/maze-v1", [episode(5, np.random.default_rng(0)), episode(3, np.random.default_rng(1))])
    return store / "here" / "maze-v1" / "data" / "main_data.hdf5"


def replace(group: h5py.Group, key: str, value: np.ndarray | None) -> None:
    del group[key]
    if value is not None:
        group[key] = value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("episode_1", None, "it holds 1 episodes; the metadata promise 2"),
        ("episode_1/terminations", None, "the key 'episode_1/terminations' is missing"),
        ("episode_1/actions", None, "the key 'episode_1/actions' is missing"),
        ("episode_0/rewards", np.array([0, 0, np.nan, 0, 0]), "'episode_0/rewards' holds NaN .* at step 2"),
        ("episode_0/actions", np.zeros(5), r"'episode_0/actions' has shape \(5,\)"),
        ("episode_0/actions", np.full((5, 2), b"x"), r"'episode_0/actions' holds \|S1; expected an array of numbers"),
        ("episode_0/actions", np.bytes_(b"x"), "'episode_0/actions' holds"),
        ("episode_0/observations", np.zeros((5, 4)), "'episode_0/observations' has 5 rows, 'actions' 5, "),
        (
            "episode_1/observations",
            np.zeros((4, 3)),
            r".*/observations': an observation must be \(..., 4\), got \(4, 3\)",
        ),
    ],
)
def test_a_bad_minari_file_is_named_with_its_key(store, key, value, message):
    path = minari_file(store)
    with h5py.File(path, "a") as file:
        replace(file, key, value)
    with pytest.raises(ValueError, match=f"^{path}: {message}"):
        load_minari("here/maze-v1")


def test_a_truncated_minari_file_is_named(store):
    path = minari_file(store)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=f"^{path}: not a whole HDF5 file"):
        load_minari("here/maze-v1")
    path.with_name("metadata.json").write_text("{")
    with pytest.raises(ValueError, match=f"^{path.with_name('metadata.json')}: not the metadata of a Minari dataset"):
        load_minari("here/maze-v1")


def refused(path: Path, message: str) -> None:
    """Loading the dataset is refused by one sentence that begins with the path."""
    with pytest.raises(ValueError, match=message) as raised:
        load_minari("here/maze-v1")
    sentence = str(raised.value)
    assert sentence.startswith(f"{path}: ") and "\n" not in sentence and len(sentence) < 400


def test_a_minari_file_that_lies_is_refused_before_minari_reads_it(store):
    path = minari_file(store)
    whole = path.read_bytes()

    def damage(change) -> None:
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            change(file)

    huge = {"shape": (10**12,), "dtype": "f8", "chunks": (100,), "compression": "gzip"}
    damage(lambda file: file["episode_1/infos"].create_dataset("huge", **huge))
    refused(path, r"'episode_1/infos/huge' would take 7,450\.6 GiB")
    damage(lambda file: file.__setitem__("episode_1/infos/loop", h5py.SoftLink("/episode_1/infos/loop")))
    refused(path, "'episode_1/infos/loop' is a link; expected the data themselves")
    damage(lambda file: file.__setitem__("episode_0/infos/out", h5py.ExternalLink("/dev/zero", "/x")))
    refused(path, "'episode_0/infos/out' is a link")
    damage(lambda file: file.__setitem__("episode_1/infos/again", file["episode_1"]))
    refused(path, "'episode_1' lies in 2 places of the file; expected one")
    path.write_bytes(whole)
    assert len(load_minari("here/maze-v1")) == 8


def test_a_minari_file_that_another_program_holds_open_is_not_called_damaged(store):
    path = minari_file(store)
    with open(path, "rb+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        refused(path, "another program has the file open and holds a lock on it")


BOX = {"type": "Box", "dtype": "float32", "shape": [4], "low": [-1] * 4, "high": [1] * 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total_episodes": 10**12}, None),
        ({"total_episodes": "2"}, "metadata.total_episodes: .* got '2'"),
        ({"total_episodes": 0}, None),
        ({"total_steps": -8}, "metadata.total_steps"),
        ({"data_format": 5}, "metadata.data_format"),
        ({"observation_space": None}, "metadata.observation_space"),  # Minari would make an environment to find it
        ({"observation_space": "[" * 100_000}, "not the metadata of a Minari dataset"),
        ({"observation_space": json.dumps(BOX | {"shape": [10**12]})}, "a space of 1,000,000,000,000 numbers in"),
        (
            {"action_space": json.dumps({"type": "Dict", "subspaces": {"a": BOX | {"shape": [9, 10**9]}}})},
            "a space of 9,000",
        ),
        ({"action_space": json.dumps(5)}, "not the metadata of a Minari dataset"),
    ],
)
def test_minari_metadata_that_lie_are_refused(store, change, message):
    path = minari_file(store)
    metadata = path.with_name("metadata.json")
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | change))
    if message is None:  # not of a wrong type: it is the file that holds something else
        refused(path, "it holds 2 episodes; the metadata promise 1,000,000,000,000|the dataset holds no episode")
    else:
        refused(metadata, message)


@pytest.mark.parametrize("text", ["[" * 1_000_000, "5", "null", '{"a": ' * 50_000], ids=["[[[", "5", "null", "{{{"])
def test_metadata_that_are_no_object_or_nested_without_end_are_refused(store, text):
    path = minari_file(store).with_name("metadata.json")
    path.write_text(text)
    refused(path, "not the metadata of a Minari dataset")


@pytest.mark.parametrize("part", ["metadata.json", "main_data.hdf5"])
def test_a_dataset_that_lacks_a_file_is_not_taken_for_one_that_is_not_there(store, monkeypatch, part):
    monkeypatch.setattr(minari, "download_dataset", lambda _: pytest.fail("asked the server"))
    folder = minari_file(store).parent
    (folder / part).unlink()
    for read in (load, load_minari):
        with pytest.raises(ValueError, match=f"^{folder}: the dataset is not whole: it lacks '{part}'"):
            read("here/maze-v1")


def test_metadata_that_are_a_pipe_or_too_long_are_refused(store, monkeypatch):
    path = minari_file(store).with_name("metadata.json")
    monkeypatch.setattr("dfplan.data.minari_sets.LONGEST_METADATA", 100)
    refused(path, "the metadata are longer than 100 bytes")
    path.unlink()
    os.mkfifo(path)
    refused(path, "pipe or a device")


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_tuples_and_nested_dictionaries_are_joined(store, data_format):
    one, two = (gym.spaces.Box(-np.inf, np.inf, (n,), np.float64) for n in (1, 2))
    space = gym.spaces.Tuple([two, gym.spaces.Dict(b=one, a=two)])
    rng = np.random.default_rng(0)
    place, a, b = rng.standard_normal((4, 2)), rng.standard_normal((4, 2)), rng.standard_normal((4, 1))
    one_episode = dataclasses.replace(episode(3, rng), observations=(place, {"b": b, "a": a}))
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers(
            "here/maze-v1", [one_episode], observation_space=space, action_space=ACTIONS, data_format=data_format
        )
    data = load("here/maze-v1")
    expected = np.float32(np.hstack([place, a, b]))
    np.testing.assert_array_equal(np.vstack([data.observations, data.last_observations]), expected)
    assert data.features == Features(("0", "1"), widths=(2, 3))
    np.testing.assert_array_equal(np.float32(data.features((place[0], {"a": a[0], "b": b[0]}))), expected[0])


def test_features_and_goals_of_a_minari_set_are_those_asked_for(store):
    episodes = [episode(steps, np.random.default_rng(steps), goals=True) for steps in (5, 3)]
    collect("here/maze-v1", episodes, WITH_GOALS)
    only = load("here/maze-v1", features=Features(keys=("observation",)), goal=(1, 0))
    np.testing.assert_array_equal(only.observations[:5], np.float32(episodes[0].observations["observation"][:-1]))
    assert only.features.goal_columns == (1, 0) and only.features.goal_key == ""
    columns = load("here/maze-v1", features=(5, 0, 4))
    np.testing.assert_array_equal(columns.observations[5:], observed(episodes[1])[:-1, [5, 0, 4]])
    assert columns.features.goal_columns == (2, 0) and columns.features.goal_key == "desired_goal"
    with pytest.raises(ValueError, match=r"main_data.hdf5: where does 'achieved_goal' stand in these features\? Give"):
        load("here/maze-v1", features=(0, 4))
    assert load("here/maze-v1", features=(0, 4), goal=()).features.goal_key == ""
    with pytest.raises(
        ValueError, match=r"main_data.hdf5: an observation lacks the entry 'place'; it has \['achieved_goal', "
    ):
        load("here/maze-v1", features=Features(keys=("place",)))


@pytest.mark.parametrize("data_format", ["arrow", "parquet"])
def test_minari_sets_of_other_data_formats_are_the_same(store, data_format):
    episodes = [episode(steps, np.random.default_rng(steps)) for steps in (5, 2, 3)]
    collect("here/maze-v1", episodes)
    collect("here/other-v1", episodes, data_format=data_format)
    first, other = load("here/maze-v1"), load("here/other-v1")
    assert first.fingerprint == other.fingerprint and first.terminations.any()
    np.testing.assert_array_equal(first.last_observations, other.last_observations)
    np.testing.assert_array_equal(first.truncations, other.truncations)
    data = store / "here" / "other-v1" / "data"
    shutil.rmtree(data / "1")
    with pytest.raises(ValueError, match=f"^{data}: it holds 2 episodes; the metadata promise 3"):
        load("here/other-v1")
    (data / "1").mkdir()
    with pytest.raises(ValueError, match=f"^{data}: (Minari cannot read its dataset|Minari reads 8 steps)"):
        load("here/other-v1")
    os.mkfifo(data / "1" / f"part-0.{data_format}")
    with pytest.raises(ValueError, match="pipe or a device"):
        load("here/other-v1")


def test_an_arrow_episode_that_minari_cuts_off_is_refused(store):
    collect("here/long-v1", [episode(40_000, np.random.default_rng(0))], data_format="arrow")
    with pytest.raises(
        ValueError, match=r"Minari reads 32767 steps; the metadata promise 40000; .* write the set as hdf5"
    ):
        load("here/long-v1")


def test_a_data_format_without_its_package_is_named(store, monkeypatch):
    collect("here/maze-v1", [episode(5, np.random.default_rng(0))], data_format="arrow")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "minari.dataset._storages.arrow_storage", raising=False)
    with pytest.raises(
        ImportError, match=r"'here/maze-v1' is in arrow form, which needs pyarrow: install dfplan\[arrow\]"
    ):
        load("here/maze-v1")


def test_endings_may_be_in_capitals_and_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a.HDF5", "a.H5", "a.Hdf5"):
        write(tmp_path / name, d4rl_content())
        assert load(f"~/{name}").fingerprint == load(tmp_path / name).fingerprint
    with pytest.raises(FileNotFoundError, match=f"There is no file '{tmp_path}/b.NPZ'"):
        load("~/b.NPZ")


@pytest.mark.parametrize(
    "spec", ["data.csv", "/tmp", "~/data", "../up-v0/x", "maze2d-large", "", "a b-v1", Path("a-v1")]
)
def test_what_is_neither_file_nor_id_is_no_minari_id(spec, monkeypatch):
    monkeypatch.setattr(minari, "download_dataset", lambda _: pytest.fail("asked the server"))
    with pytest.raises(
        ValueError, match=r"names no data: expected a file ending in \.hdf5, \.h5 or \.npz, 'd4rl:NAME', or"
    ):
        load(spec)
    with pytest.raises(ValueError, match="is no Minari id with its version"):
        load_minari("maze2d-large")


def test_an_unknown_minari_dataset_is_downloaded_only_when_asked(store, monkeypatch):
    asked = []

    def download(dataset_id: str) -> None:
        asked.append(dataset_id)
        collect(dataset_id, [episode(4, np.random.default_rng(0))])

    monkeypatch.setattr(minari, "download_dataset", download)
    with pytest.raises(FileNotFoundError, match="no local Minari dataset 'far/away-v1'"):
        load_minari("far/away-v1")
    assert not asked
    assert len(load("far/away-v1")) == len(load("far/away-v1")) == 4
    assert asked == ["far/away-v1"]  # once


@pytest.mark.parametrize(
    ("cause", "kind", "message"),
    [
        (ImportError("no hub"), ImportError, r"needs huggingface_hub: install dfplan\[hub\]"),
        (RuntimeError("No route.\nRetrying"), FileNotFoundError, r"could not be downloaded \(No route\)\.$"),
        (TimeoutError(), FileNotFoundError, r"could not be downloaded \(TimeoutError\)\.$"),
    ],
)
def test_a_failed_download_is_one_sentence_with_its_cause(store, monkeypatch, cause, kind, message):
    def download(dataset_id: str) -> None:
        raise cause

    monkeypatch.setattr(minari, "download_dataset", download)
    with pytest.raises(kind, match=f"^Minari dataset 'far/away-v1' is not on this machine.*{message}") as raised:
        load("far/away-v1")
    assert raised.value.__cause__ is cause and "\n" not in str(raised.value)


def d4rl_content(steps: int = 60, **other: np.ndarray | None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    content = {
        "observations": rng.standard_normal((steps, 4), dtype=np.float32),
        "actions": rng.standard_normal((steps, 2), dtype=np.float32),
        "rewards": rng.standard_normal(steps, dtype=np.float32),
        "terminals": np.zeros(steps, bool),
    }
    return {key: value for key, value in (content | other).items() if value is not None}


def write(path: Path, content: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            file.create_dataset(key, data=value, compression="gzip" if np.ndim(value) else None)
    return path


def flags(steps: int, *at: int) -> np.ndarray:
    return np.isin(np.arange(steps), at)


def test_d4rl_episodes_end_at_terminals_timeouts_and_the_end_of_the_file(tmp_path):
    content = d4rl_content(terminals=flags(60, 9, 30), timeouts=flags(60, 19, 30))
    path = write(tmp_path / "a.hdf5", content)
    trajectories = load(path)
    np.testing.assert_array_equal(trajectories.episode_starts, [0, 10, 20, 31])
    np.testing.assert_array_equal(np.flatnonzero(trajectories.terminations), [9, 30])
    np.testing.assert_array_equal(np.flatnonzero(trajectories.truncations), [19, 59])
    assert trajectories.last_observations is None
    np.testing.assert_array_equal(trajectories.episode_ends, [10, 20, 31, 60])
    for key in ("observations", "actions", "rewards"):
        np.testing.assert_array_equal(getattr(trajectories, key), content[key])
    assert trajectories.name == str(path)
    assert load(str(path)).fingerprint == trajectories.fingerprint


def test_d4rl_file_without_timeouts_with_columns_and_a_flag_on_its_last_step(tmp_path):
    columns = d4rl_content(rewards=np.arange(60.0)[:, None], terminals=flags(60, 29, 59)[:, None].astype(np.float32))
    trajectories = load(write(tmp_path / "a.h5", columns))
    np.testing.assert_array_equal(trajectories.episode_starts, [0, 30])
    np.testing.assert_array_equal(trajectories.rewards, np.arange(60))
    assert trajectories.rewards.dtype == np.float32


def maze2d_drive(steps: int = 600, every: int = 100, resets: bool = False) -> dict[str, np.ndarray]:
    """A ball that rolls smoothly and gets a new target `every` steps, at which the last observation is recorded twice,
    as in D4RL's maze2d files; with `resets`, the ball is put somewhere else at each target."""
    rng = np.random.default_rng(0)
    velocity = np.cumsum(rng.standard_normal((steps, 2)), axis=0)
    position = np.cumsum(0.01 * velocity, axis=0)
    starts = np.arange(every, steps, every)
    observations = np.concatenate([position, velocity], axis=1).astype(np.float32)
    observations[starts] = observations[starts - 1]
    goals = np.repeat(rng.standard_normal((steps // every, 2)), every, axis=0).astype(np.float32)
    if resets:
        observations[:, :2] += 10 * goals
    timeouts = flags(steps, *(starts - 1))
    return d4rl_content(steps, observations=observations, timeouts=timeouts) | {"infos/goal": goals}


def test_a_new_target_does_not_end_a_maze2d_drive_but_a_reset_does(tmp_path):
    drive, resets = (write(tmp_path / f"{r}.hdf5", maze2d_drive(resets=r)) for r in (False, True))
    apart = np.arange(0, 600, 100)
    np.testing.assert_array_equal(load(drive).episode_starts, [0])
    ends = maze2d_drive() | {"terminals": maze2d_drive()["timeouts"]}  # as D4RL's own generator writes them
    rolling = load(write(tmp_path / "terminals.hdf5", ends))
    assert len(rolling.episode_starts) == 1 and not rolling.terminations.any()
    assert load_d4rl_hdf5(tmp_path / "terminals.hdf5", cut_at_flags=True).terminations.sum() == 5
    np.testing.assert_array_equal(load(resets).episode_starts, apart)
    np.testing.assert_array_equal(load_d4rl_hdf5(drive, cut_at_flags=True).episode_starts, apart)
    np.testing.assert_array_equal(load_d4rl_hdf5(resets, cut_at_flags=False).episode_starts, [0])
    no_goal = {key: value for key, value in maze2d_drive().items() if key != "infos/goal"}
    np.testing.assert_array_equal(load(write(tmp_path / "no_goal.hdf5", no_goal)).episode_starts, apart)


def test_a_drive_without_any_flag_is_one_episode(tmp_path):
    path = write(tmp_path / "a.hdf5", maze2d_drive() | {"timeouts": flags(600)})
    np.testing.assert_array_equal(load(path).episode_starts, [0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({key: None}, f"the key '{key}' is missing") for key in ("observations", "actions", "rewards", "terminals")),
        ({"observations": np.zeros((60, 4, 1))}, r"'observations' has shape \(60, 4, 1\); expected \(steps, width\)"),
        ({"observations": np.zeros((0, 4))}, r"'observations' has shape \(0, 4\)"),
        ({"rewards": np.zeros((60, 2))}, r"'rewards' has shape \(60, 2\); expected \(steps,\)"),
        ({"rewards": np.full(60, np.inf)}, "'rewards' holds NaN or infinity, first at step 0"),
        ({"rewards": np.float32(0)}, r"'rewards' has shape \(\)"),
        ({"actions": np.zeros((60, 2), complex)}, "'actions' holds complex128; expected an array of numbers"),
        ({"actions": np.zeros((60, 2), "S3")}, r"'actions' holds \|S3"),
        ({"actions": np.zeros((59, 2))}, "the arrays differ in length: .*'actions': 59"),
        ({"terminals": np.zeros(61)}, "the arrays differ in length: .*'terminals': 61"),
        ({"timeouts": np.zeros(61)}, "the arrays differ in length: .*'timeouts': 61"),
    ],
)
def test_a_bad_d4rl_file_is_named_with_its_key(tmp_path, change, message):
    path = write(tmp_path / "a.hdf5", d4rl_content(**change))
    with pytest.raises(ValueError, match=f"^{path}: {message}"):
        load(path)


def test_a_truncated_foreign_or_absent_d4rl_file_is_named(tmp_path):
    path = write(tmp_path / "a.hdf5", d4rl_content(5000))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"a page that says 'not found'", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^{path}: not a whole HDF5 file"):
            load(path)
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nowhere\.hdf5"):
        load(tmp_path / "nowhere.hdf5")


def test_a_damaged_array_is_named(tmp_path):
    path = write(tmp_path / "a.hdf5", d4rl_content(5000))
    with h5py.File(path) as file:
        chunk = file["observations"].id.get_chunk_info(0)
    damaged = bytearray(path.read_bytes())
    damaged[chunk.byte_offset : chunk.byte_offset + chunk.size // 2] = bytes(chunk.size // 2)
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=f"^{path}: 'observations' cannot be read; the file is truncated or damaged"):
        load(path)


@pytest.fixture
def fake_d4rl(tmp_path, monkeypatch) -> Path:
    """Stands in for the d4rl package: one address on this disk, one that leads nowhere."""
    source = write(tmp_path / "server.hdf5", d4rl_content())
    package, infos, offline = (types.ModuleType(name) for name in ("d4rl", "d4rl.infos", "d4rl.offline_env"))
    infos.DATASET_URLS = {"maze2d-large-v1": source.as_uri(), "maze2d-gone-v1": (tmp_path / "gone.hdf5").as_uri()}
    cache = tmp_path / "cache"
    cache.mkdir()
    offline.filepath_from_url = lambda url: str(cache / url.rsplit("/", 1)[1])
    package.infos, package.offline_env = infos, offline
    for module in (package, infos, offline):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return cache


def test_d4rl_datasets_are_downloaded_once_from_the_packages_addresses(fake_d4rl):
    trajectories = load("d4rl:maze2d-large-v1")
    np.testing.assert_array_equal(trajectories.observations, d4rl_content()["observations"])
    assert [path.name for path in fake_d4rl.iterdir()] == ["server.hdf5"]
    (fake_d4rl.parent / "server.hdf5").unlink()
    assert load_d4rl("maze2d-large-v1").fingerprint == trajectories.fingerprint


def test_d4rl_failures_are_told_and_leave_nothing(fake_d4rl, monkeypatch):
    with pytest.raises(ConnectionError, match="Could not download 'maze2d-gone-v1' from file://"):
        load("d4rl:maze2d-gone-v1")
    assert not list(fake_d4rl.iterdir())
    with pytest.raises(ValueError, match="d4rl has no dataset 'maze2d-larg-v1'; close to it: maze2d-large-v1"):
        load("d4rl:maze2d-larg-v1")
    monkeypatch.setitem(sys.modules, "d4rl", None)
    with pytest.raises(ImportError, match="needs the d4rl package"):
        load("d4rl:maze2d-large-v1")


FOUR_MILLION = """
import json, resource, sys, time
import numpy as np
import torch
from dfplan.data.windows import Windows
from dfplan.data.statistics import Normalizer
from dfplan.data.readers import load
begin = time.perf_counter()
trajectories = load(sys.argv[1])
loaded = time.perf_counter() - begin
windows = Windows(trajectories, 500)
normalizer = Normalizer.fit(trajectories.observations)
for _ in range(20):
    batch = normalizer.normalize(torch.from_numpy(windows.sample(np.random.default_rng(0), 256)[0]))
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
assert len(trajectories.fingerprint) == 64
print(json.dumps({"steps": len(trajectories), "seconds": loaded, "peak": peak}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["minari", "d4rl"])
def test_four_million_steps_are_read_and_sampled_within_two_gigabytes(store, form, capsys):
    steps, spec = 4_000_000, str(store / "big.hdf5")
    if form == "d4rl":
        write(Path(spec), maze2d_drive(steps, 200))
    else:
        spec = "here/big-v1"
        collect(spec, [episode(steps // 4, np.random.default_rng(i)) for i in range(4)])
    result = subprocess.run([sys.executable, "-c", FOUR_MILLION, spec], capture_output=True, text=True, check=True)
    report = json.loads(result.stdout)
    with capsys.disabled():
        print(f"\n{form}: 4 million steps in {report['seconds']:.2f} s, peak {report['peak'] / 2**30:.2f} GiB")
    assert report["steps"] == steps
    assert report["peak"] < 2 * 2**30
