"""Weights on the Hugging Face hub: one safetensors file in a repository, beside a model card made from the file's own card.

    agent.push("user/maze2d-mine")
    agent = from_pretrained("user/maze2d-mine")

Needs huggingface_hub (the extra `hub`), imported when it is used. That package reads the token for writing (`hf auth login`, or
HF_TOKEN), and keeps fetched files, so that they need no network later. Of a repository, only the weights file is read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dfplan.quoting import shortened
from dfplan.training.checkpoint import CheckpointError

WEIGHTS = "weights.safetensors"
"""The file of a repository that holds an agent."""
NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
"""The name of a repository: its owner's and its own."""


def fetch(repository: str, file: str = WEIGHTS, sha256: str | None = None) -> Path:
    """A file of a repository, on this machine.

    Raises ImportError without huggingface_hub, ValueError for a repository or a file that is not there, OSError where the hub
    cannot be reached, and CheckpointError for a file whose sha256 is another.
    """
    with _client(f"{file} of {repository!r} cannot be fetched") as api:
        path = Path(api.hf_hub_download(repository, file))
    if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise CheckpointError(
            f"{file} of {repository!r} is another file than {sha256[:12]}, the one that was asked for"
        )
    return path


def publish(repository: str, weights: Path, card: str, private: bool = False) -> str:
    """Write weights and their model card to a repository in one commit; the repository is made if it is not there. Returns
    its address.

    Raises ImportError without huggingface_hub, ValueError for an invalid name, and OSError where the hub refuses, or cannot be
    reached.
    """
    with _client(f"{repository!r} cannot be written") as api:
        from huggingface_hub import CommitOperationAdd

        address = api.create_repo(repository, private=private, exist_ok=True)
        parts = [CommitOperationAdd(WEIGHTS, str(weights)), CommitOperationAdd("README.md", card.encode())]
        api.create_commit(repository, parts, commit_message="Weights of an agent of dfplan")
    return str(address)


def model_card(repository: str, kind: str, parameters: int, card: Mapping[str, Any]) -> str:
    """A repository's README.md, Markdown with YAML front matter: how the weights are loaded, and what their card says."""
    data, score = card.get("data", {}), card.get("score")
    seconds, steps, command = map(card.get, ("training_seconds", "steps", "command"))
    figures = {
        "algorithm": kind,
        "parameters": f"{parameters:,}",
        "training steps": None if steps is None else f"{steps:,}",
        "training seeds": ", ".join(map(str, card.get("seeds", ()))) or card.get("seed"),
        "training time": None if seconds is None else f"{seconds / 60:.1f} minutes",
        "data": data.get("name"),
        "sha256 of the data": data.get("fingerprint"),
        "environment of the training's own check": score.get("env") if isinstance(score, dict) else None,
        "score in it": score.get("normalized", score.get("success %")) if isinstance(score, dict) else score,
        "command": None if command is None else f"`{command}`",
    }
    rows = [f"| {name} | {str(value).replace('|', '/')} |" for name, value in figures.items() if value is not None]
    return f"""---
library_name: dfplan
tags: [reinforcement-learning, planning, gymnasium, {kind}]
---

# {card.get("name", repository)}

An agent of dfplan: decision making and planning with Diffusion Forcing.

```python
from dfplan.agents.loading import from_pretrained

agent = from_pretrained("{repository}")
```

| | |
|---|---|
{chr(10).join(rows)}
"""


@contextmanager
def _client(what: str) -> Iterator[Any]:
    """The hub's client. An error within becomes one sentence that begins with `what`."""
    try:
        from huggingface_hub import HfApi, errors
    except ImportError as error:
        raise ImportError(f"{what}: that needs huggingface_hub, install dfplan[hub]") from error
    api = HfApi(library_name="dfplan")
    try:
        yield api
    except errors.HFValidationError as error:
        raise ValueError(f"{what}: {_one_line(error)}") from error
    except errors.RepositoryNotFoundError as error:
        found = f"{api.endpoint} has no such repository, or it is private and there is no token that may read it"
        raise ValueError(f"{what}: {found}") from error
    except errors.LocalEntryNotFoundError as error:
        raise OSError(f"{what}: {api.endpoint} cannot be reached, and the file was not fetched before") from error
    except errors.EntryNotFoundError as error:
        raise ValueError(f"{what}: the repository has no such file") from error
    except Exception as error:  # its transports have errors of their own, some of them no OSError
        raise OSError(f"{what}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return shortened(" ".join(str(error).split()) or type(error).__name__, 300)
