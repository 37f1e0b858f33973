"""Files of stable-baselines3 that somebody else made: nothing in them runs, and what is wrong with one is a sentence."""

import base64
import io
import json
import pickle
import zipfile
import zlib
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import dfplan.envs  # noqa: F401
from dfplan.agents import weights
from dfplan.agents.loading import load, pretrained_names, pretrained_path
from dfplan.agents.online.stable_baselines import StableBaselinesAgent
from dfplan.benchmarks import rows
from dfplan.envs.registry import task
from dfplan.training.checkpoint import CheckpointError
from dfplan.training.model_zip import read_model_zip

sb3 = pytest.importorskip("stable_baselines3")
SHIPPED = pretrained_names("stable_baselines3")
OBSERVATIONS = np.random.default_rng(0).normal(size=(64, 4)) * [1.5, 1.5, 2.0, 2.0] + [2.0, 2.0, 0.0, 0.0]


class Marks:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "executed"))


class OwnNet(torch.nn.Tanh):
    """A class that only its author has."""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sb3") / "model.zip"
    env = gymnasium.make("maze2d-umaze-v1")
    sb3.SAC("MlpPolicy", env, seed=0, policy_kwargs={"net_arch": [16, 16]}, buffer_size=10).save(path)
    return path


def changed(source, target, compression=zipfile.ZIP_STORED, data=None, **entries):
    """A copy of a model file; `data` edits its JSON, other names replace an entry, or leave it out where None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "data" and data is not None:
                settings = json.loads(content)
                content = json.dumps(data(settings) or settings).encode()
            content = entries.get(name.replace(".", "_"), content)
            if content is not None:
                new.writestr(name, content)
    return target


def evil(source, target):
    """A model file whose every pickle writes the file 'marker' beside it."""
    marker = target.parent / "marker"
    payload = base64.b64encode(pickle.dumps(Marks(marker))).decode()

    def infect(data):
        infected = [item.update({":serialized:": payload}) for item in data.values() if isinstance(item, dict)]
        assert len(infected) > 4

    changed(source, target, data=infect)
    return marker


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_act_alike_with_and_without_unpickling(name):
    plain, unpickled = (StableBaselinesAgent.load(pretrained_path(name), trust_pickle=trust) for trust in (False, True))
    for agent in (plain, unpickled):
        agent.reset(goal=[1.0, 1.0])
    np.testing.assert_array_equal(plain.act(OBSERVATIONS), unpickled.act(OBSERVATIONS))
    assert (plain.config, plain.parameters, plain.card) == (unpickled.config, unpickled.parameters, unpickled.card)


def test_no_pickle_runs_unless_it_is_trusted(file, tmp_path):
    marker = evil(file, tmp_path / "evil.zip")
    agent = StableBaselinesAgent.load(tmp_path / "evil.zip")
    assert not marker.exists()
    np.testing.assert_array_equal(agent.act(OBSERVATIONS), StableBaselinesAgent.load(file).act(OBSERVATIONS))
    with pytest.raises(CheckpointError):
        StableBaselinesAgent.load(tmp_path / "evil.zip", trust_pickle=True)
    assert marker.exists(), "the file would not have run anything: the test shows nothing"


def test_the_commands_run_no_pickle(tmp_path, monkeypatch, capsys):
    """The card table with a named file, and a row of the benchmark with a file that lies in ./runs."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "maze2d-umaze-ppo-seed0"
    folder.mkdir(parents=True)
    marker = evil(pretrained_path("maze2d-umaze-ppo"), folder / "weights.zip")
    umaze = task("maze2d-umaze-v1")
    assert rows.row("ppo").weights_file(umaze, 0) == Path("runs/maze2d-umaze-ppo-seed0/weights.zip")
    for name in ("ppo", f"sb3:{folder / 'weights.zip'}"):
        rows.row(name).build(umaze, seed=0).act(OBSERVATIONS)
    load(folder / "weights.zip").act(OBSERVATIONS)
    monkeypatch.setattr("sys.argv", ["weights", str(folder / "weights.zip")])
    assert weights.main() == 0 and "weights" in capsys.readouterr().out
    assert not marker.exists()


def test_a_user_can_trust_a_named_file(tmp_path, monkeypatch):
    """By the prefix, for one's own classes; the plain one says so."""
    env = gymnasium.make("maze2d-umaze-v1")
    model = sb3.PPO("MlpPolicy", env, seed=0, policy_kwargs={"net_arch": [8], "activation_fn": OwnNet})
    monkeypatch.chdir(tmp_path)  # a short path, so that the sentence has room for all it says
    model.save("own.zip")
    with pytest.raises(
        CheckpointError, match=r"activation_fn, <class '.*OwnNet'>, is in its pickles alone.*trust_pickle=True"
    ):
        StableBaselinesAgent.load("own.zip")
    with pytest.raises(CheckpointError, match="without unpickling"):
        rows.row("sb3:own.zip").build(task("maze2d-umaze-v1"))
    agent = rows.row("sb3-trust-pickle:own.zip").build(task("maze2d-umaze-v1"))
    expected = model.predict(OBSERVATIONS, deterministic=True)[0]
    np.testing.assert_array_equal(agent.act(OBSERVATIONS), expected)


def test_a_policy_class_of_its_author_is_refused(file, tmp_path):
    def own(data):
        data["policy_class"]["__module__"] = "my.policies"

    with pytest.raises(CheckpointError, match=r"its policy class my\.policies\.SACPolicy, is in its pickles alone"):
        StableBaselinesAgent.load(changed(file, tmp_path / "own.zip", data=own))


@pytest.mark.parametrize("name", ["PPO", "A2C", "SAC", "DDPG"])
def test_usual_settings_of_policies_need_no_unpickling(name, tmp_path):
    """Activations, separate networks, generalized exploration, other limits of actions, several critics."""
    env = gymnasium.wrappers.RescaleAction(gymnasium.make("maze2d-umaze-v1"), np.float32(-0.1), np.float32(0.7))
    settings = {"net_arch": {"pi": [8], "vf": [8, 8]}, "activation_fn": torch.nn.ELU}
    if name in ("SAC", "DDPG"):
        settings = {
            "net_arch": {"pi": [8], "qf": [8]},
            "activation_fn": torch.nn.GELU,
            "optimizer_class": torch.optim.SGD,
        }
    if name == "SAC":
        settings |= {"n_critics": 3, "share_features_extractor": True}
    options = {} if name == "DDPG" else {"use_sde": True}
    model = getattr(sb3, name)("MlpPolicy", env, seed=0, policy_kwargs=settings, **options)
    model.save(tmp_path / "model.zip")
    agent = StableBaselinesAgent.load(tmp_path / "model.zip")
    np.testing.assert_array_equal(agent.act(OBSERVATIONS), model.predict(OBSERVATIONS, deterministic=True)[0])
    assert agent.algorithm == name
    np.testing.assert_array_equal(agent.action_space.low, np.float32([-0.1, -0.1]))


def test_loading_leaves_the_random_numbers_alone(file):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    StableBaselinesAgent.load(file)
    assert (torch.rand(2) == expected).all()


def put(*keys, value):
    def edit(data):
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return edit


WRONG = {
    "steps in words": (
        put("num_timesteps", value="x"),
        r"data\.num_timesteps: input should be a valid integer, got 'x'",
    ),
    "no policy": (lambda data: data.pop("policy_class"), r"data\.policy_class is missing"),
    "policy as text": (put("policy_class", value="MlpPolicy"), r"data\.policy_class: "),
    "space as a list": (put("observation_space", value=[4]), r"data\.observation_space: "),
    "settings as a number": (put("policy_kwargs", value=3), r"data\.policy_kwargs: "),
    "a list": (lambda data: [1, 2], "is not a JSON object"),
    "huge observations": (put("observation_space", "_shape", value=[10**12]), "observations have the shape"),
    "fractions": (put("observation_space", "_shape", value=[4.0]), "observations have the shape"),
    "limits as text": (put("action_space", "low", value="[nan 0.]"), "a Box of shape"),
    "one limit": (put("action_space", "low", value="[0.]"), "a Box of shape"),
    "huge layers": (put("policy_kwargs", "net_arch", value=[10**9, 10**9]), "does not fit its policy"),
    "layers beyond all": (put("policy_kwargs", "net_arch", value=[10**18, 10**18]), "cannot be built"),
    "negative layers": (put("policy_kwargs", "net_arch", value=[-1]), "cannot be built|does not fit"),
    "layers in words": (put("policy_kwargs", "net_arch", value=["x"]), "cannot be built"),
    "many layers": (put("policy_kwargs", "net_arch", value=[16] * 10**5), "more parts than it has weights"),
    "many critics": (put("policy_kwargs", "n_critics", value=10**9), "more parts than it has weights"),
    "unknown settings": (put("policy_kwargs", "color", value="red"), "cannot be built"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_json_is_one_sentence(case, file, tmp_path):
    edit, text = WRONG[case]
    path = changed(
        file, tmp_path / "wrong.zip", data=lambda data: result if isinstance(result := edit(data), list) else None
    )
    with pytest.raises(CheckpointError, match=text) as caught:
        StableBaselinesAgent.load(path)
    assert "wrong.zip" in str(caught.value) and len(str(caught.value)) <= 300 and "\n" not in str(caught.value)


def saved(value, **options):
    content = io.BytesIO()
    torch.save(value, content, **options)
    return content.getvalue()


def test_wrong_weights_are_one_sentence(file, tmp_path):
    state = read_model_zip(file).state("policy")
    name = next(iter(state))
    deflated = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(state))) as old, zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    marker = tmp_path / "marker"
    cases = {
        "not a whole zip file": b"text",
        "is compressed": deflated.getvalue(),
        "are no weights: 1 with NaN": saved(state | {name: state[name] * float("nan")}),
        "does not fit its policy": saved(state | {name: torch.zeros(3)}),
        r"does not fit its policy: 1 unknown \(extra\)": saved(state | {"extra": torch.zeros(3)}),
        r"torch\.int32 instead of torch\.float32": saved(state | {name: state[name].int()}),
        "does not fit its policy: 1 missing": saved({key: state[key] for key in list(state)[1:]}),
        "other than the tensors": saved([1, 2]),
        "does not hold tensors alone": saved(Marks(marker)),
        "not a whole zip": saved(Marks(marker), _use_new_zipfile_serialization=False),
        "it has no policy.pth": None,
    }
    for text, content in cases.items():
        with pytest.raises(CheckpointError, match=text):
            StableBaselinesAgent.load(changed(file, tmp_path / "wrong.zip", policy_pth=content))
    assert not marker.exists()


def test_a_file_that_unfolds_without_measure_is_not_unfolded(file, tmp_path, monkeypatch):
    bomb = changed(file, tmp_path / "bomb.zip", zipfile.ZIP_DEFLATED, policy_pth=bytes(30_000_000))
    with pytest.raises(CheckpointError, match=r"bomb.zip would unfold to 30,\d+,\d+ bytes, \d+ times its own size"):
        StableBaselinesAgent.load(bomb)
    honest = changed(file, tmp_path / "honest.zip", zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(
        StableBaselinesAgent.load(honest).act(OBSERVATIONS), StableBaselinesAgent.load(file).act(OBSERVATIONS)
    )


def test_an_entry_that_understates_its_size_is_read_no_further(file, tmp_path):
    """The directory says 100 bytes, the deflated stream holds 30 million."""
    path = changed(file, tmp_path / "lying.zip", zipfile.ZIP_DEFLATED, policy_pth=bytes(30_000_000))
    content = path.read_bytes()
    assert content.count((30_000_000).to_bytes(4, "little")) == 2
    path.write_bytes(content.replace((30_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    with pytest.raises(CheckpointError, match=r"lying.zip"):
        StableBaselinesAgent.load(path)


def test_other_zips_are_one_sentence(file, tmp_path):
    path = tmp_path / "file.zip"
    content = bytearray(file.read_bytes())
    for position in range(0, len(content), len(content) // 40):  # damage anywhere
        damaged = content.copy()
        damaged[position : position + 64] = b"\xff" * 64
        path.write_bytes(damaged)
        try:
            StableBaselinesAgent.load(path)
        except CheckpointError as error:
            assert "file.zip" in str(error)
    for size in (0, 1, 22, 100, len(content) // 2):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"file\.zip is .*not a whole"):
            StableBaselinesAgent.load(path)
    locked = content.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")
    locked = locked.replace(b"PK\x01\x02\x2d\x03\x2d\x00\x00\x00", b"PK\x01\x02\x2d\x03\x2d\x00\x01\x00")
    path.write_bytes(locked)
    with pytest.raises(CheckpointError, match=r"file\.zip is encrypted"):
        StableBaselinesAgent.load(path)
    changed(file, path, zipfile.ZIP_BZIP2)
    with pytest.raises(CheckpointError, match="a method other than deflate"):
        StableBaselinesAgent.load(path)
    changed(file, path, policy_pth=None).write_bytes(path.read_bytes() + zlib.compress(b"x"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../policy.pth", b"")
    with pytest.raises(CheckpointError, match=r"it has no policy\.pth"):
        StableBaselinesAgent.load(path)
    changed(file, path, data=lambda data: [])
    deep = "[" * 200_000 + "]" * 200_000
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", deep)
    with pytest.raises(CheckpointError, match=r"the entry 'data' of .* is not JSON"):
        StableBaselinesAgent.load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointError, match="there is no model file"):
        StableBaselinesAgent.load(path)
