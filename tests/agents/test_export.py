"""The exported denoising step is torch's, and the page's loop of numpy makes the plan that torch makes."""

import json
import sys

import numpy as np
import pytest
import torch
from every_agent import offline, trajectory_model
from test_readme import PAGES, block

from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.agents.loading import from_pretrained
from dfplan.agents.offline.bc import BCConfig, BehaviorCloningAgent
from dfplan.diffusion.matrices import pyramid
from dfplan.diffusion.sampler import State, run
from dfplan.planning.step_export import Step, about

SMALL = {"goal": "known", "scale": 0.0, "futures": 0, "eta": 0.0}


def test_missing_packages_are_named_and_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"exporting needs onnx and onnxscript .*pip install"):
        trajectory_model().export(tmp_path / "policy.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_metadata_are_plain_and_say_where_things_stand():
    agent = from_pretrained("maze2d-umaze")
    said, config = about(agent.model, agent.config.plan), agent.model.config
    assert json.loads(json.dumps(said)) == said
    assert said["columns"] == config.width and said["by_column"] and said["goal"] == [0, 1]
    small = trajectory_model()
    said, layout = about(small.model, small.config.plan), small.model.config.layout
    token = torch.arange(layout.width)
    assert (
        said["observation"] == token[layout.last].tolist() and len(said["observation"]) == 4 and not said["by_column"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [trajectory_model, lambda: from_pretrained("cube-single")], ids=["by token", "by part"]
)
def test_a_step_is_torchs_for_any_batch_and_length(make, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
    agent = make()
    agent.export(tmp_path / "policy.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["policy.onnx"]
    session, config = runtime.InferenceSession(tmp_path / "policy.onnx"), agent.model.config
    said = json.loads(session.get_modelmeta().custom_metadata_map["dfplan"])
    assert said == about(agent.model, agent.config.plan)
    generator, step = torch.Generator().manual_seed(0), Step(agent.model.diffusion)
    for batch, tokens in ((1, config.tokens), (7, config.tokens), (32, config.tokens - 1)):
        x = torch.randn((batch, tokens, config.width), generator=generator)
        shape = x.shape if config.parts else x.shape[:2]
        k, other = (torch.randint(0, config.levels + 1, shape, generator=generator) for _ in range(2))
        k_next = torch.minimum(k, other)
        with torch.no_grad():
            expected = step(x, k, k_next)
        (found,) = session.run(None, {"x": x.numpy(), "k": k.numpy(), "k_next": k_next.numpy()})
        assert np.abs(found - expected.numpy()).max() <= 1e-4 * max(1.0, float(expected.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("goals", [(), (0, 1)], ids=["without a goal", "to a goal"])
def test_an_exported_policy_acts_as_torch_does(goals, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
    agent = offline(BehaviorCloningAgent, BCConfig(4, 2, hidden=(8, 8), goal_columns=goals)).with_options(member=2)
    agent.export(tmp_path / "policy.onnx")
    session = runtime.InferenceSession(tmp_path / "policy.onnx")
    rng = np.random.default_rng(0)
    for batch in (1, 7):
        given = {"observation": rng.normal(size=(batch, 4)).astype(np.float32)}
        given |= {"goal": rng.normal(size=(batch, 2)).astype(np.float32)} if goals else {}
        agent.reset(goal=given.get("goal"))
        np.testing.assert_allclose(session.run(None, given)[0], agent.act(given["observation"]), atol=1e-4)


@pytest.mark.slow
def test_the_loop_of_the_page_makes_torchs_plan(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
    monkeypatch.chdir(tmp_path)
    exec(block("test:export", PAGES["export.md"]), {})
    names, source = {}, block("test:loop", PAGES["export.md"])
    exec(source, names)
    assert names["path"].shape == (20, 4) and names["path"][0] == pytest.approx([3, 1, 0, 0], abs=1e-5)
    assert names["path"][-1, :2] == pytest.approx([1, 1], abs=1e-5)
    exec(block("test:speed", PAGES["export.md"]), names)  # as it is, so that `pytest -m slow -s` shows both times
    assert min(names["by_torch"], names["by_onnx"]) > 0
    agent = DiffusionForcingAgent.from_pretrained("maze2d-umaze")
    model, plan = agent.model, agent.config.plan
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 20, 4)).astype(np.float32))
    known = torch.zeros(x.shape, dtype=torch.bool)
    ends = model.observation.normalize(torch.tensor([[3.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]))
    x[0, 0], known[0, 0], x[0, -1, :2], known[0, -1, :2] = ends[0], True, ends[1, :2], True
    state = State(x, torch.where(known, 0, model.config.levels), known)
    matrix = pyramid(20, model.config.levels, plan.steps, plan.uncertainty)
    *_, last = run(model.diffusion, state, matrix, torch.Generator())
    expected = model.observation.denormalize(last.tokens[0]).numpy()
    assert np.abs(names["path"] - expected).max() < 1e-3
