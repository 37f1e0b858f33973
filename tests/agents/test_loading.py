import json

import numpy as np
import pytest

from dfplan.agents import loading
from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.agents.loading import (
    AGENTS,
    MANIFEST,
    PRETRAINED,
    agent_class,
    from_pretrained,
    kind_of,
    load,
    pretrained_names,
    pretrained_path,
    weights_in,
)
from dfplan.agents.mppi import MPPIAgent
from dfplan.benchmarks.suites import ogbench  # noqa: F401  # registers the features that weights name
from dfplan.training.checkpoint import CheckpointError, load_header, save_checkpoint


def test_every_shipped_file_becomes_the_agent_that_its_header_names():
    names = pretrained_names()
    assert {"maze2d-large", "maze2d-medium", "maze2d-umaze"} <= set(names)
    for kind, where in AGENTS.items():
        for name in pretrained_names(kind):
            agent = from_pretrained(name)
            assert type(agent).__name__ == where.partition(":")[2]
            assert agent.card["name"] == name and agent.parameters > 0


@pytest.mark.parametrize("kind", [kind for kind in AGENTS if pretrained_names(kind)])
def test_every_agent_has_from_pretrained_for_its_own_kind(kind):
    agent, name = agent_class(kind), max(pretrained_names(kind), key=lambda name: name.startswith("maze2d-umaze"))
    loaded = agent.from_pretrained(name)
    assert (
        type(loaded) is agent and agent.kind == kind == kind_of(pretrained_path(name)) and loaded.card["name"] == name
    )
    other = "maze2d-umaze" if kind != "trajectory_model" else "maze2d-umaze-bc"
    with pytest.raises(ValueError, match=f"the weights '{other}' are another agent's"):
        agent.from_pretrained(other)
    if not agent.stacked:
        with pytest.raises(ValueError, match="holds one training seed: there is no member 1"):
            load(pretrained_path(name), member=1)
    else:
        last = len(loaded.learner.config.seeds) - 1
        assert load(pretrained_path(name), member=last).config.member == last and loaded.config.member == 0
        with pytest.raises(ValueError, match=rf"member must lie in 0\.\.{last}, got {last + 1}"):
            agent.from_pretrained(name, member=last + 1)


def test_an_agent_without_weights_has_none_to_load():
    with pytest.raises(ValueError, match="MPPIAgent has no weights to load"):
        MPPIAgent.load("any.safetensors")


def test_a_shipped_agent_acts():
    agent = from_pretrained("maze2d-umaze")
    agent.reset(goal=(1.0, 1.0), seed=0)
    assert agent.act(np.array([3.0, 1.0, 0.0, 0.0])).shape == (2,)


def test_names_and_files_that_are_not_there_or_not_agents(tmp_path):
    with pytest.raises(ValueError, match="unknown pretrained weights 'maze2d-huge'; did you mean maze2d-"):
        from_pretrained("maze2d-huge")
    with pytest.raises(ValueError, match="the weights 'maze2d-large' are another agent's"):
        pretrained_path("maze2d-large", kind="bc")
    with pytest.raises(CheckpointError, match="there is no checkpoint file"):
        load(tmp_path / "absent.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    save_checkpoint(foreign, {}, {"kind": "training"})
    with pytest.raises(CheckpointError, match="holds 'training', not the weights of an agent"):
        load(foreign)
    with pytest.raises(ValueError, match="holds one training seed: there is no member 2"):
        from_pretrained("maze2d-umaze", member=2)


def test_weights_that_an_installed_package_lacks_are_in_a_clone(tmp_path, monkeypatch):
    entry = {"file": "maze2d-large-paper.safetensors", "bytes": 5_576_036, "command": "make paper"}
    (tmp_path / MANIFEST).write_text(json.dumps({"maze2d-large-paper": entry}))
    monkeypatch.setattr(loading, "PRETRAINED", tmp_path)
    said = r"'maze2d-large-paper' \(5.6 MB\) are not in the installed package: a clone .* `make paper` makes"
    with pytest.raises(ValueError, match=said):
        from_pretrained("maze2d-large-paper")
    with pytest.raises(ValueError, match=r"unknown pretrained weights 'maze2d-huge'; known: \(none\)"):
        from_pretrained("maze2d-huge")


def test_the_manifest_names_every_file():
    named = json.loads((PRETRAINED / MANIFEST).read_bytes())
    assert {path.stem: path.name for path in weights_in(PRETRAINED)} == {
        name: one["file"] for name, one in named.items()
    }


def test_the_header_is_read_without_the_tensors():
    header = load_header(pretrained_path("maze2d-large"))
    assert header["kind"] == "trajectory_model" and header["card"]["name"] == "maze2d-large"


def test_forgetting_a_row_that_is_not_in_the_batch_is_one_sentence():
    agent = DiffusionForcingAgent.from_pretrained("maze2d-umaze")
    agent.reset(goal=(1.0, 1.0), seed=0)
    agent.act(np.zeros((2, 4)) + 1)
    with pytest.raises(ValueError, match=r"rows of this batch must be from 0 to 1, got \[2\]"):
        agent.forget([2])
