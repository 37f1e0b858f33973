"""Plans as values: rows of them, and their form as JSON."""

import json
import math

import pytest
import torch

from dfplan.planning.plan import Plan


@pytest.fixture
def plan():
    g = torch.Generator().manual_seed(0)
    levels = torch.tensor([[0, 0, 0, 0], [0, 0, 8, 8]])
    return Plan(
        torch.randn(2, 4, 1, 3, generator=g),
        torch.tensor([3, 1]),
        levels,
        torch.randn(2, 4, 5, generator=g),
        torch.randn(2, 6, 2, generator=g),
        {"plausibility": torch.randn(2, generator=g), "cost": torch.tensor([0.1, 2.0])},
        [(torch.randn(2, 4, 1, 3, generator=g), torch.full((2, 4), k)) for k in (8, 4, 0)],
    )


def parts(plan):
    yield from (("observations", plan.observations), ("lengths", plan.lengths), ("levels", plan.levels))
    yield from (("tokens", plan.tokens), ("actions", plan.actions), *plan.scores.items())
    for row, (x, k) in enumerate(plan.history):
        yield from ((f"observations {row}", x), (f"levels {row}", k))


def test_a_plan_comes_back_from_json_to_the_bit(plan):
    text = json.dumps(plan.to_json(), allow_nan=False)
    for (name, ours), (again, theirs) in zip(parts(plan), parts(Plan.from_json(json.loads(text))), strict=True):
        assert name == again and ours.dtype == theirs.dtype and torch.equal(ours, theirs), name


def test_parts_that_a_planner_does_not_have_stay_away(plan):
    bare = Plan(plan.observations, plan.lengths, plan.levels)
    again = Plan.from_json(bare.to_json())
    assert again.tokens is None and again.actions is None and not again.scores and not again.history
    assert len(bare) == len(again) == 2 and len(bare.rows(torch.tensor([1]))) == 1


def test_rows_are_taken_from_all_parts(plan):
    for (name, ours), (_, theirs) in zip(parts(plan), parts(plan.rows(torch.tensor([1, 1, 0]))), strict=True):
        assert torch.equal(theirs, ours[[1, 1, 0]]), name


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"observations": "here"}, r"plan\.observations: input should be a valid array, got 'here'"),
        ({"observations": [[[1.0, 2.0]]]}, "a plan's observations have 4 dimensions"),
        ({"observations": [[1.0], [1.0, 2.0]]}, "a plan's parts are nested lists of numbers"),
        ({"lengths": [3]}, r"a plan's observations have 4 .* the first of them \(1, 4\), but these are \(2, 4, 1, 3\)"),
        ({"levels": [[0, 0], [0, 0]]}, r"a plan's levels have 2 dimensions, the first of them \(2, 4\)"),
        ({"tokens": [["a"]]}, "a plan's parts are nested lists of numbers"),
        ({"scores": {"cost": [1.0]}}, "a plan's scores 'cost' have 1 dimensions"),
        ({"history": [{"observations": []}]}, r"plan\.history\.0\.levels is missing"),
        ({"history": [3]}, r"plan\.history\.0: "),
    ],
)
def test_what_is_no_plan_is_one_sentence(plan, changes, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        Plan.from_json(plan.to_json() | changes)
    assert "\n" not in str(caught.value)


def test_values_of_another_form_are_one_sentence(plan):
    left = plan.to_json()
    del left["lengths"]
    for values in (left, None, [], 3, {}, plan.to_json() | {"scores": {"cost": [math.nan, 0.0]}}):
        with pytest.raises(ValueError, match="plan") as caught:
            Plan.from_json(values)
        assert "\n" not in str(caught.value)
