"""Weights on a hub: a tiny one on loopback, which the real client speaks with."""

import base64
import hashlib
import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from every_agent import EVERY, OBSERVATION

from dfplan.agents import hub, loading
from dfplan.agents.diffusion_forcing import DiffusionForcingAgent
from dfplan.agents.loading import from_pretrained
from dfplan.agents.offline.bc import BehaviorCloningAgent
from dfplan.training.checkpoint import CheckpointError

constants = pytest.importorskip(
    "huggingface_hub.constants", reason="the hub's client is not installed: pip install -e '.[hub]'"
)
COMMIT = "0" * 40
PAGE = Path(__file__).parents[2] / "docs" / "training.md"


class Hub(BaseHTTPRequestHandler):
    """Repositories as dictionaries of files; small files come in the commit itself."""

    repositories: dict

    def answer(self, status=200, body=b"{}", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        address = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if name.startswith("other/"):
                return self.answer(403, b'{"error": "it is not yours"}')
            self.repositories.setdefault(name, {})
            return self.answer(body=json.dumps({"url": f"{address}/{name}", "id": name}).encode())
        if self.path == "/api/validate-yaml":  # of a model card
            return self.answer()
        _, _, _, owner, name, action, *_ = self.path.split("/")
        if action == "preupload":
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self.answer(body=json.dumps({"files": files}).encode())
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.repositories[f"{owner}/{name}"][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        made = {"commitUrl": f"{address}/{owner}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}
        return self.answer(body=json.dumps(made).encode())

    def do_GET(self):
        if "/resolve/" not in self.path:
            return self.answer(404)
        _, owner, name, *_, file = self.path.split("?")[0].split("/")
        files = self.repositories.get(f"{owner}/{name}")
        if files is None or file not in files:
            missing = "RepoNotFound" if files is None else "EntryNotFound"
            return self.answer(404, X_Error_Code=missing, X_Repo_Commit=COMMIT)
        tag = hashlib.sha1(files[file]).hexdigest()
        return self.answer(body=files[file], ETag=f'"{tag}"', X_Repo_Commit=tag)

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *_):
        pass


def answer_to(monkeypatch, address):
    """What HF_ENDPOINT does in a new process."""
    former = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + former)


@pytest.fixture
def repositories(tmp_path, monkeypatch):
    """What a hub on loopback holds; the client knows of no other."""
    handler = type("Handler", (Hub,), {"repositories": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    answer_to(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield handler.repositories
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_pushed_agent_acts_as_it_did(repositories):
    agent = EVERY["bc"]()
    agent.card |= {"name": "drives", "command": "make it", "steps": 1200, "seeds": [0, 1], "training_seconds": 90.0}
    assert agent.push("me/drives", critics=True).endswith("/me/drives")
    assert set(repositories["me/drives"]) == {"weights.safetensors", "README.md"}
    for load in (from_pretrained, BehaviorCloningAgent.from_pretrained):
        again = load("me/drives")
        assert type(again) is BehaviorCloningAgent and again.card == agent.card
        np.testing.assert_array_equal(again.act(OBSERVATION), agent.act(OBSERVATION))


def test_the_example_of_sharing_weights_runs(repositories, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    EVERY["trajectory_model, diffused actions"]().save("runs/robot/weights.safetensors")
    (example,) = re.findall(r"^<!-- test:push -->\n```python\n(.*?)^```$", PAGE.read_text(), flags=re.M | re.S)
    exec(example, names := {})
    assert names["agent"].act(OBSERVATION).shape == (2,) and "user/robot" in repositories


def test_the_model_card_is_made_of_the_weights_own(repositories):
    agent = DiffusionForcingAgent.from_pretrained("maze2d-umaze")
    _, front, text = hub.model_card("me/umaze", agent.kind, agent.parameters, agent.card).split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "dfplan" and "trajectory_model" in yaml.safe_load(front)["tags"]
    assert "# maze2d-umaze" in text and 'from_pretrained("me/umaze")' in text
    assert f"| parameters | {agent.parameters:,} |" in text and agent.card["data"]["fingerprint"] in text
    assert f"| score in it | {agent.card['score']['normalized']} |" in text and "None" not in text
    bare = hub.model_card("me/bare", "bc", 5, {})
    assert "# me/bare" in bare and bare.endswith("| algorithm | bc |\n| parameters | 5 |\n")


def test_what_a_hub_cannot_give_is_one_sentence(repositories, monkeypatch):
    agent = EVERY["bc"]()
    agent.push("me/bc")
    repositories["me/empty"] = {"model.pkl": b"a pickle"}
    repositories["me/foreign"] = {"weights.safetensors": b"a pickle"}
    for name, error, said in (
        ("me/absent", ValueError, "has no such repository, or it is private"),
        ("me/empty", ValueError, "the repository has no such file"),
        ("me/-bad-", ValueError, "cannot be fetched: "),
        ("me/foreign", CheckpointError, "weights.safetensors"),
    ):
        with pytest.raises(error, match=said) as raised:
            from_pretrained(name)
        assert "\n" not in str(raised.value)
    with pytest.raises(CheckpointError, match="holds 'bc', not the weights of 'trajectory_model'"):
        DiffusionForcingAgent.from_pretrained("me/bc")
    with pytest.raises(OSError, match=r"'other/bc' cannot be written: .*it is not yours"):
        agent.push("other/bc")
    answer_to(monkeypatch, "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # before the client tries again
    assert from_pretrained("me/bc").parameters == agent.parameters, "what was fetched before needs no network"
    with pytest.raises(OSError, match=r"'me/other' cannot be fetched: http://127\.0\.0\.1:9 cannot be reached"):
        from_pretrained("me/other")
    with pytest.raises(OSError, match="'me/bc' cannot be written: "):
        agent.push("me/bc")


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"'me/bc' cannot be fetched: that needs .* install dfplan\[hub\]"):
        from_pretrained("me/bc")


def test_weights_that_the_wheel_lacks_are_fetched_from_a_repository_that_a_variable_names(
    repositories, tmp_path, monkeypatch
):
    agent, file = EVERY["bc"](), tmp_path / "bc.safetensors"
    agent.save(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    entry = {"file": file.name, "bytes": 1, "command": "make bc", "sha256": digest}
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / loading.MANIFEST).write_text(json.dumps({"bc": entry}))
    monkeypatch.setattr(loading, "PRETRAINED", tmp_path / "installed")
    with pytest.raises(ValueError, match=f"{loading.ELSEWHERE}=user/name names a repository"):
        from_pretrained("bc")
    monkeypatch.setenv(loading.ELSEWHERE, "me/all")
    repositories["me/all"] = {file.name: file.read_bytes()}
    assert from_pretrained("bc").parameters == agent.parameters
    repositories["me/all"][file.name] += b"more"
    with pytest.raises(CheckpointError, match=f"is another file than {digest[:12]}"):
        from_pretrained("bc")
