"""A module as an ONNX file, for computers without torch."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfplan.whole_files import write_whole

ABOUT = "dfplan"
"""The file's metadata under this key say, as JSON, what else its user needs."""


def write_onnx(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    output: str,
    free: Sequence[str],
    about: Mapping[str, Any],
    path: str | Path,
) -> None:
    """Write a module as an ONNX file, whole or not at all.

    `inputs` are examples by name, whose first axes, with the names in `free`, may have any size. Raises ValueError where the
    packages of the extra `export` are missing, OSError where the file cannot be written.
    """
    try:
        import onnxscript  # noqa: F401
        from onnx import helper
    except ImportError as error:
        install = "pip install -c constraints.txt -e '.[export]'"
        raise ValueError(f"exporting needs onnx and onnxscript ({error}): {install}") from error
    axes = {place: torch.export.Dim(name) for place, name in enumerate(free)}
    with _silent(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=(axes,) * len(inputs),
        )
    assert program is not None
    proto = program.model_proto
    helper.set_model_props(proto, {ABOUT: json.dumps(dict(about))})
    write_whole(path, proto.SerializeToString())


@contextmanager
def _silent() -> Iterator[None]:
    """Without torch's remarks on its own exporter."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
