import json
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import pytest
from pydantic import Field

from dfplan.config_json import config_from_json, config_to_json
from dfplan.fields import Depth, Size


@dataclass(frozen=True)
class Square:
    width: Size = 8
    kind: Literal["square"] = "square"

    def __post_init__(self):
        if self.width % 2:
            raise ValueError(f"the width must be even, got {self.width}")


@dataclass(frozen=True)
class Round:
    depth: Depth = 1
    kind: Literal["round"] = "round"


@dataclass(frozen=True)
class Whole:
    net: Annotated[Square | Round, Field(discriminator="kind")] = field(default_factory=Square)
    other: Round = Round()
    columns: tuple[int, ...] = (0, 1)
    noise: tuple[float, float] = (0.1, 0.2)
    rate: float = 0.5
    draws: dict[str, float] = field(default_factory=lambda: {"a": 1.0})
    way: Literal["near", "far"] = "near"
    causal: bool = False
    goal: str | None = None


@pytest.mark.parametrize(
    "config", [Whole(), Whole(Round(3), Round(2), (), (1.0, 2.0), 7.0, {}, "far", True, "x"), Whole(Square(2))]
)
def test_what_is_written_is_read(config):
    assert config_from_json(Whole, json.loads(json.dumps(config_to_json(config)))) == config


def test_what_is_not_there_takes_its_default():
    assert config_from_json(Whole, {"rate": 1}) == Whole(rate=1.0)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"rate": "x"}, "config.rate: input should be a valid number, got 'x'"),
        ({"rate": None}, "config.rate: input should be a valid number"),
        ({"rate": float("nan")}, "config is not plain JSON"),
        ({"rate": True}, "config.rate: input should be a valid number"),
        ({"columns": [0, 1.5]}, "config.columns.1: input should be a valid integer, got 1.5"),
        ({"columns": [0, True]}, "config.columns.1: input should be a valid integer, got True"),
        ({"columns": "01"}, "config.columns: input should be a valid array, got '01'"),
        ({"noise": [1.0]}, "config.noise"),
        ({"draws": {"a": []}}, "config.draws.a: input should be a valid number"),
        ({"way": "middle"}, "config.way: input should be 'near' or 'far', got 'middle'"),
        ({"causal": 1}, "config.causal: input should be a valid boolean"),
        ({"speed": 1}, "config.speed is unknown here"),
        ({"net": {"kind": "oval"}}, "config.net: input tag 'oval'"),
        ({"net": {}}, "config.net: unable to extract tag"),
        ({"net": {"kind": "square", "width": 3}}, "config.net.square: the width must be even, got 3"),
        ({"net": {"kind": "square", "width": 10**9}}, "config.net.square.width: .* less than or equal to 1048576"),
        ({"other": {"depth": 10**12}}, "config.other.depth: .* less than or equal to 1000"),
        ({"other": {"depth": 0}}, "config.other.depth: .* greater than or equal to 1"),
        ([], "config: input should be an object"),
        ("x" * 1000, "config: input should be an object, got 'x"),
        ({"goal": object()}, "config is not plain JSON"),
    ],
)
def test_one_sentence_names_the_field(data, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        config_from_json(Whole, data)
    assert len(str(caught.value)) < 250 and "\n" not in str(caught.value)


def test_a_field_that_must_be_there():
    @dataclass(frozen=True)
    class Bare:
        width: int

    with pytest.raises(ValueError, match=r"model\.width is missing"):
        config_from_json(Bare, {}, "model")


def test_a_config_that_is_no_json_is_one_sentence():
    with pytest.raises(ValueError, match="Whole cannot be written as JSON"):
        config_to_json(Whole(rate=np.ones(3)))
