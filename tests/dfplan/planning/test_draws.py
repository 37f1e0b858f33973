import pytest
import torch
from scipy.stats import chisquare

from dfplan.diffusion.levels import independent
from dfplan.planning.draws import (
    DRAWS,
    TO_GOAL,
    Mixture,
    goal_ramp,
    next_token_to_goal,
    partial_goals,
    ramp,
    shared_to_goal,
    unknown_padding,
    whole_goals,
)

K, T = 20, 7


def draw(function, batch=20_000, tokens=T, K=K, seed=0):
    return whole_goals(function(batch, tokens, K, torch.Generator().manual_seed(seed)))


def test_futures_have_a_level_up_to_some_token_and_another_beyond():
    k, counted, _ = draw(DRAWS["futures"])
    assert bool((k[:, 0] == 0).all()) and torch.equal(counted, k > 0)
    assert bool(((k[:, 2:] != k[:, 1:-1]).sum(1) <= 1).all())
    clean = (k[:, 1] == 0).float().mean()  # half of those that have a token before the rest
    assert clean == pytest.approx(0.5 * (T - 2) / (T - 1), abs=0.03)
    assert chisquare(torch.bincount(k[:, -1])[1:]).pvalue > 1e-3


def test_from_start_is_independent_after_a_clean_start():
    k, counted, goal = draw(DRAWS["from_start"])
    assert bool((k[:, 0] == 0).all()) and torch.equal(counted, k > 0) and not goal.any()
    assert chisquare(torch.bincount(k[:, 1:].flatten())).pvalue > 1e-3
    assert abs(float(torch.corrcoef(k[:, 1:3].T.float())[0, 1])) < 0.03


def horizons(k, counted):
    """h of each goal ramp: its tokens beyond h are pure noise and not counted, and those up to h clean or counted."""
    inside = counted | (k == 0)
    h = inside.sum(1) - 1
    assert torch.equal(inside, torch.arange(k.shape[1]) <= h[:, None])
    return h


def test_goal_ramp_has_a_clean_start_a_goal_and_nothing_beyond():
    k, counted, _ = draw(goal_ramp)
    h = horizons(k, counted)
    assert chisquare(torch.bincount(h, minlength=T)[1:]).pvalue > 1e-3, "h is uniform on 1..T-1"
    assert bool((k[:, 0] == 0).all())
    assert bool((k[torch.arange(T) > h[:, None]] == K).all())
    assert bool((counted <= (k > 0)).all())
    goal = k[torch.arange(len(k)), h]
    # Unknown goals lie on the ramp, which is itself clean there only where its offset is 0 or below.
    assert 0.75 <= (goal == 0).float().mean() < 0.76
    assert chisquare(torch.bincount(h[goal > 0], minlength=T)[1:]).pvalue > 1e-3, "known or not does not depend on h"


def test_goal_ramps_rise_evenly():
    k, counted, _ = draw(goal_ramp, tokens=16)
    h = horizons(k, counted)
    position = torch.arange(16)
    between = (position > 0) & (position < h[:, None])
    both = between[:, 1:] & between[:, :-1]
    rise = k[:, 1:] - k[:, :-1]
    assert bool((rise[both] >= 0).all())
    flat = torch.where(both, rise == 0, True).all(1)
    long = h > 8
    assert 0.5 < flat[long].float().mean() < 0.6, "half are flat, and a few more clipped flat"
    unclipped = both & (k[:, 1:] < K) & (k[:, :-1] > 0)
    steepest = torch.where(unclipped, rise, 0).amax(1)
    evenest = torch.where(unclipped, rise, K).amin(1)
    two = unclipped.sum(1) > 1
    assert bool((steepest - evenest)[two].le(1).all()), "a straight line, rounded up"
    assert steepest.max() <= 4 * K / 16 + 1


def test_shared_to_goal_is_one_level_between_clean_ends():
    k, counted, _ = draw(shared_to_goal)
    inside = torch.arange(T) > 0
    assert bool((k[:, 0] == 0).all())
    levels = torch.where(counted, k, 0).amax(1, keepdim=True)
    assert bool((k[counted] == levels.expand(-1, T)[counted]).all()), "one level for all that is counted"
    assert chisquare(torch.bincount(levels[counted.any(1)].flatten())[1:]).pvalue > 1e-3
    goal = (k == 0) & inside
    assert bool((goal.sum(1) <= 1).all())
    assert 0.74 < goal.any(1).float().mean() < 0.76
    beyond = torch.where(goal.any(1, keepdim=True), torch.arange(T) > goal.long().argmax(1, keepdim=True), False)
    assert bool((k[beyond] == K).all()) and not bool(counted[beyond].any())


def test_next_token_to_goal_has_a_clean_past_one_noisy_token_and_an_unknown_future_but_for_the_goal():
    k, counted, _ = draw(next_token_to_goal)
    assert bool((counted.sum(1) <= 1).all())
    some = counted.any(1)
    nothing = 0.75 * sum(1 / h for h in range(1, T)) / (T - 1)
    assert abs(some.float().mean() - (1 - nothing)) < 0.01, "nothing to learn only where a known goal is the next token"
    now = counted.long().argmax(1)
    position = torch.arange(T)
    assert bool((k[some][position < now[some, None]] == 0).all())
    noisy = k[counted]
    assert chisquare(torch.bincount(noisy)[1:]).pvalue > 1e-3
    future = k[some].masked_fill(position <= now[some, None], K)
    assert bool(((future == K) | (future == 0)).all()) and bool(((future == 0).sum(1) <= 1).all())


def test_two_tokens_and_one_are_enough_for_every_draw():
    for function in DRAWS.values():
        for tokens in (1, 2):
            k, counted, _ = draw(function, batch=100, tokens=tokens)
            assert k.shape == counted.shape == (100, tokens)
            assert k.dtype == torch.int64 and counted.dtype == torch.bool
            assert k.min() >= 0 and k.max() <= K


@pytest.mark.parametrize("name", DRAWS)
def test_same_seed_same_levels(name):
    first, again, other = draw(DRAWS[name], 50), draw(DRAWS[name], 50), draw(DRAWS[name], 50, seed=1)
    assert torch.equal(first.k, again.k) and torch.equal(first.counted, again.counted)
    assert not torch.equal(first.k, other.k)


def test_mixture_splits_the_batch_in_proportion():
    k, counted, _ = draw(Mixture({"shared": 1.0, "next_token": 2.0, "independent": 1.0}), batch=400)
    assert len(k) == len(counted) == 400
    same = (k == k[:, :1]).all(1) & counted.all(1)
    assert bool(same[:100].all()) and not bool(same[100:].all())
    assert bool((counted[100:300].sum(1) == 1).all())
    assert int((counted[300:].sum(1) > 1).sum()) > 95
    for batch in (1, 2, 3, 7):
        assert draw(Mixture({"shared": 0.3, "independent": 0.7}), batch=batch).k.shape == (batch, T)
    alone = draw(Mixture({"goal_ramp": 3.0}), batch=50)
    assert torch.equal(alone.k, draw(goal_ramp, batch=50).k)


def test_padding_is_pure_noise_and_not_counted():
    drawn = draw(independent, batch=30)
    valid = torch.arange(T) < torch.randint(0, T + 1, (30, 1))
    padded = unknown_padding(drawn, valid, K)
    assert bool((padded.k[~valid] == K).all()) and not bool(padded.counted[~valid].any())
    assert torch.equal(padded.k[valid], drawn.k[valid]) and torch.equal(padded.counted[valid], drawn.counted[valid])


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({"independant": 1.0}, r"unknown level draws \['independant'\]: expected some of"),
        ({}, "expected some of"),
        ({"shared": 0.0}, "must be positive"),
        ({"shared": 1.0, "independent": -1.0}, "must be positive"),
        ({"shared": float("nan")}, "must be positive and finite"),
        ({"shared": float("inf")}, "must be positive and finite"),
    ],
)
def test_mixture_errors(weights, sentence):
    with pytest.raises(ValueError, match=sentence):
        Mixture(weights)


@pytest.mark.parametrize("name", sorted(TO_GOAL))
def test_three_of_four_sequences_have_one_goal_token_at_their_end(name):
    drawn = draw(DRAWS[name])
    h = horizons(drawn.k, drawn.counted) if name != "next_token_to_goal" else None
    given = drawn.goal.any(1)
    assert 0.74 < given.float().mean() < 0.76 and bool((drawn.goal.sum(1) <= 1).all())
    assert not bool(drawn.goal[:, 0].any()), "the start is no goal"
    assert bool((drawn.k[drawn.goal] == 0).all()) and not bool(drawn.counted[drawn.goal].any())
    if h is not None:
        assert torch.equal(drawn.goal.long().argmax(1)[given], h[given])


@pytest.mark.parametrize("name", sorted(DRAWS.keys() - TO_GOAL))
def test_the_other_draws_have_no_goal(name):
    assert not bool(draw(DRAWS[name]).goal.any())


def test_a_mixture_keeps_the_goals_of_its_parts_and_padding_has_none():
    drawn = draw(Mixture({"shared": 1.0, "goal_ramp": 1.0}), batch=400)
    assert not bool(drawn.goal[:200].any()) and bool(drawn.goal[200:].any())
    padded = unknown_padding(drawn, torch.zeros(400, T, dtype=torch.bool), K)
    assert not bool(padded.goal.any())


def test_of_a_partial_goal_only_the_named_columns_are_clean_and_the_rest_is_as_uncertain_as_drawn():
    drawn = goal_ramp(2_000, T, K, torch.Generator().manual_seed(0))
    columns = torch.tensor([True, False, False, True])
    k, counted, goal = partial_goals(drawn, columns)
    assert k.shape == counted.shape == (2_000, T, 4)
    assert bool((k[goal][:, columns] == 0).all()) and not bool(counted[goal][:, columns].any())
    assert torch.equal(k[goal][:, ~columns], drawn.k[goal].unsqueeze(-1).expand(-1, 2))
    assert bool((k[goal][:, 1] > 0).any()) and bool(counted[goal][:, 1].any()), "what a goal leaves open is learned"
    assert torch.equal(k[~goal], drawn.k[~goal].unsqueeze(-1).expand(-1, 4)), "all other tokens have one level"


def test_a_ramp_is_a_goal_ramp_without_ends():
    k, counted, goal = draw(ramp, tokens=16)
    assert not bool(goal.any()) and torch.equal(counted, k > 0)
    assert bool((k[:, 1:] >= k[:, :-1]).all()) and bool((k[:, 0] > 0).any()) and bool((k[:, -1] < K).any())


@pytest.mark.parametrize("name", sorted(TO_GOAL))
def test_no_goal_lies_beyond_the_longest_token(name):
    longest = torch.randint(1, T, (3_000, 1))
    goal = DRAWS[name](3_000, T, K, torch.Generator().manual_seed(0), longest).goal
    h = goal.long().argmax(1)
    assert bool((h <= longest[:, 0]).all())
    for last in range(1, T):
        assert torch.bincount(h[goal.any(1) & (longest[:, 0] == last)], minlength=T)[1 : last + 1].min() > 0
