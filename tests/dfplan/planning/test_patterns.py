"""What is known of a sequence: in training as in planning, and nothing else is shown to the network."""

import dataclasses

import numpy as np
import pytest
import torch

from dfplan.data.tokens import TokenLayout
from dfplan.models import TransformerConfig
from dfplan.planning.ask import Ask
from dfplan.planning.draws import Mixture, unknown_padding
from dfplan.planning.model import TrajectoryModel, TrajectoryModelConfig
from dfplan.planning.past import Past
from dfplan.planning.patterns import ask_pattern, condition_token, draw_pattern
from dfplan.planning.plan_config import PlanConfig
from dfplan.planning.planner import make_plan

K = 16
SMALL = TransformerConfig(width=16, depth=1, heads=2)
LAYOUT = TokenLayout(3, 1, stride=2, actions=True)
"""Columns of a token: observation 0..2, of which 1 is the goal's, actions 3..4, and a return in 5."""


def config(**options):
    options = {"tokens": 6, "parts": True, "goal_within": 9, "inverse": False, "plausibility": None} | options
    return TrajectoryModelConfig(LAYOUT, goal_columns=(1,), levels=K, model=SMALL, **options)


CHUNKS = config(condition=("goal", "return"), history=2, in_flight=1, draws={"independent": 1.0})


def drawn_patterns(made, valid=None, batch=4_000, unconditional=0.1):
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(batch, made.tokens, LAYOUT.width, generator=generator)
    drawn = Mixture(made.draws)(batch, made.tokens, K, generator)
    valid = torch.ones(batch, made.tokens, dtype=torch.bool) if valid is None else valid
    given = {"goal": torch.full((batch, 1), 7.0), "return": torch.full((batch, 1), 8.0)}
    given = {name: value for name, value in given.items() if name in made.condition}
    return x0, *draw_pattern(made, x0, drawn, valid, given, generator)


def test_parts_are_numbered_by_what_a_column_holds():
    assert CHUNKS.part_of == (0, 1, 0, 2, 2, 3)
    assert config().part_of == (0, 1, 0, 2, 2) and config(parts=False, condition=()).part_of == ()
    assert (CHUNKS.present, CHUNKS.future, CHUNKS.width) == (3, 3, 6)


def test_only_the_next_tokens_hold_actions_where_those_of_others_are_never_played():
    made = config(acted=2, draws={"goal_ramp": 1.0})
    _, _, (k, counted, _) = drawn_patterns(made)
    assert bool((k[:, 3:, 3:5] == K).all()) and not bool(counted[:, 3:, 3:5].any())
    assert bool(counted[:, 1:3, 3:5].any()) and bool(counted[:, 3:, :3].any())
    known = ask_pattern(made, torch.zeros(2, LAYOUT.width), 6, {"goal": torch.ones(2, 1)}, torch.tensor([4, 5]))
    assert bool(known.mask[:, 3:, 3:5].all()) and bool((known.level[:, 3:, 3:5] == K).all())
    assert not bool(known.mask[:, 1:3, 3:5].any())
    plan = make_plan(
        TrajectoryModel(made), torch.zeros(2, 3), Ask(torch.ones(2, 1)), PlanConfig(steps=2), torch.Generator()
    )
    assert plan.actions is not None and plan.actions.shape == (2, 2 * LAYOUT.stride, 1)


def test_a_condition_token_shows_what_is_given_and_nothing_else():
    given = {"goal": torch.tensor([[7.0], [torch.nan]]), "return": torch.tensor([[torch.nan], [8.0]])}
    token, k = condition_token(CHUNKS, 2, torch.device("cpu"), given)
    assert token[0, 0].tolist() == [0, 7, 0, 0, 0, 0] and k[0, 0].tolist() == [K, 0, K, K, K, K]
    assert token[1, 0].tolist() == [0, 0, 0, 0, 0, 8] and k[1, 0].tolist() == [K, K, K, K, K, 0]


def test_training_asks_by_goal_and_return_each_left_out_as_often_as_the_config_says():
    _, x, (k, counted, _) = drawn_patterns(CHUNKS)
    for column, value in ((1, 7.0), (5, 8.0)):
        asked = k[:, 0, column] == 0
        assert abs(asked.float().mean() - 0.9) < 0.02 and bool((x[asked, 0, column] == value).all())
        assert bool((k[~asked, 0, column] == K).all())
    assert bool((k[:, 0, [0, 2, 3, 4]] == K).all()) and not bool(counted[:, 0].any())
    both = ((k[:, 0, 1] == 0) & (k[:, 0, 5] == 0)).float().mean()
    assert abs(both - 0.81) < 0.03, "one without the other"


def test_training_shows_the_past_as_far_as_it_was_seen_and_always_the_present_observation():
    x0, x, (k, counted, _) = drawn_patterns(CHUNKS)
    observed, present = [0, 1, 2], CHUNKS.present
    assert bool((k[:, present, observed] == 0).all()) and not bool(counted[:, present, observed].any())
    past = k[:, 1:present, observed]
    assert bool(((past == 0) | (past == K)).all()) and not bool(counted[:, 1:present].any())
    cut = (past[:, :, 0] == K).sum(1)
    assert bool((past[cut == 1][:, 1] == 0).all()), "the oldest tokens are cut off first"
    assert 0.1 < (cut > 0).float().mean() < 0.25
    assert torch.equal(x[:, 1:, : LAYOUT.width], x0)


def test_actions_before_a_window_are_absent_and_decided_ones_may_be_known():
    _, _, (k, counted, _) = drawn_patterns(CHUNKS)
    actions = [3, 4]
    assert bool((k[:, 1, actions] == K).all()) and not bool(counted[:, 1, actions].any())
    after = CHUNKS.present + 1
    flying = (k[:, after, actions] == 0).all(-1) & ~counted[:, after, actions].any(-1)
    assert 0.45 < flying.float().mean() < 0.6, "one token or none, each in half of the sequences"
    assert bool((k[flying][:, after, 0] > 0).any()), "their observations are drawn apart"
    assert bool((k[:, 1:, 5] == K).all()) and not bool(counted[:, 1:, 5].any()), "tokens have no return"


def test_padding_is_absent_and_not_counted():
    valid = torch.ones(4_000, CHUNKS.tokens, dtype=torch.bool)
    valid[:, -1], valid[:, 0] = False, False
    generator = torch.Generator().manual_seed(0)
    drawn = unknown_padding(Mixture(CHUNKS.draws)(4_000, CHUNKS.tokens, K, generator), valid, K)
    x0 = torch.zeros(4_000, CHUNKS.tokens, LAYOUT.width)
    _, (k, counted, _) = draw_pattern(CHUNKS, x0, drawn, valid, {}, generator)
    for token in (0, CHUNKS.tokens - 1):
        assert bool((k[:, 1 + token] == K).all()) and not bool(counted[:, 1 + token].any())


def test_of_a_goal_at_the_end_of_a_plan_training_shows_its_own_columns_alone():
    made = config(draws={"goal_ramp": 1.0})
    _, _, (k, counted, goal) = drawn_patterns(made)
    assert 0.7 < goal.any(1).float().mean() < 0.8
    assert bool((k[goal][:, 1] == 0).all()) and not bool(counted[goal][:, 1].any())
    rest = k[goal][:, [0, 2]]
    assert bool((rest > 0).any()) and bool(counted[goal][:, [0, 2]].any()), "the rest is learned, not filled in"


def past(seen, decided=None):
    rows = len(seen)
    observations = torch.arange(rows * 4 * 3.0).view(rows, 4, 3) + 100
    actions = torch.arange(rows * 4.0).view(rows, 4, 1) + 50
    return Past(observations, actions, torch.tensor(seen), actions[:, :0] if decided is None else decided)


def test_planning_asks_as_training_does():
    start = LAYOUT.state_token(torch.tensor([[1.0, 2.0, 3.0]] * 3))
    given = {"goal": torch.full((3, 1), 7.0)}
    known = ask_pattern(CHUNKS, start, 4, given, torch.tensor([3, 3, 3]), past([0, 2, 4]))
    assert known.tokens.shape == (3, 7, 6)
    k = torch.where(known.mask, known.level, -1)
    assert k[:, 0].tolist() == [[K, 0, K, K, K, K]] * 3, "no return is asked for"
    asked = ask_pattern(CHUNKS, start, 4, given | {"return": torch.full((3, 1), 8.0)}, torch.tensor([3, 3, 3]))
    assert asked.level[:, 0].tolist() == [[K, 0, K, K, K, 0]] * 3 and asked.tokens[:, 0, 5].tolist() == [8.0] * 3
    assert bool((asked.level[:, 1:, 5] == K).all()), "only the condition token has a return"
    assert known.tokens[:, 3, :3].tolist() == [[1, 2, 3]] * 3 and bool((k[:, 3, :3] == 0).all())
    assert bool((k[0, 1:3, :5] == K).all()) and bool((k[0, 3, 3:5] == K).all()), "an episode begins: nothing was seen"
    assert bool((k[1, 1] == K).all()) and k[1, 2].tolist() == [K] * 6, "two steps are the present token alone"
    assert k[1, 3, 3:5].tolist() == [0, 0], "the two actions that led to the present"
    assert bool((k[2, 1:3, :3] == 0).all()) and k[2, 1, 3:5].tolist() == [K, K] and k[2, 2, 3:5].tolist() == [0, 0]
    made = past([0, 2, 4])
    assert torch.equal(known.tokens[2, 1, :3], made.observations[2, 0]), "the oldest observation opens the window"
    assert torch.equal(known.tokens[2, 2, :3], made.observations[2, 2])
    assert torch.equal(known.tokens[2, 2, 3:5], made.actions[2, :2, 0])
    assert bool((k[:, 4:, :5] == -1).all()), "the plan is to be drawn"


def test_decided_actions_are_known_and_their_observations_are_not():
    start = LAYOUT.state_token(torch.zeros(2, 3))
    decided = torch.tensor([[[0.5], [0.6]], [[torch.nan], [torch.nan]]])
    known = ask_pattern(CHUNKS, start, 4, {}, torch.tensor([3, 3]), past([4, 4], decided))
    token = CHUNKS.present + 1
    assert torch.allclose(known.tokens[0, token, 3:5], torch.tensor([0.5, 0.6]))
    assert known.mask[0, token].tolist() == [False, False, False, True, True, True]
    assert known.level[0, token, 3:5].tolist() == [0, 0] and not bool(known.mask[1, token, :5].any())


def test_a_plan_may_be_shorter_than_what_is_decided():
    decided = torch.arange(4.0).view(1, 4, 1).expand(2, -1, -1)
    known = ask_pattern(CHUNKS, torch.zeros(2, LAYOUT.width), 2, {}, torch.tensor([1, 1]), past([4, 4], decided))
    assert known.tokens[:, -1, 3:5].tolist() == [[0, 1]] * 2 and bool((known.level[:, -1, 3:5] == 0).all())


def test_the_past_remembers_what_happened_and_forgets_where_an_episode_begins():
    made = Past.start(2, 4, 3, 1, torch.device("cpu"))
    for step in range(6):
        made = made.after(torch.full((2, 3), float(step)), torch.full((2, 1), 10.0 + step))
    assert made.observations[0, :, 0].tolist() == [2, 3, 4, 5] and made.actions[0, :, 0].tolist() == [12, 13, 14, 15]
    assert made.seen.tolist() == [4, 4] and made.forget(torch.tensor([1])).seen.tolist() == [4, 0]
    seen, whole = past([1, 3]).seen_tokens(2)
    assert seen.tolist() == [[False, False, True], [False, False, True]] and not bool(whole[0].any())
    assert past([4, 4]).seen_tokens(2)[0].all() and past([2, 2]).seen_tokens(2)[1][0].tolist() == [False, False, True]


def test_training_leaves_out_some_observations_up_to_the_present_and_never_actions():
    made = config(history=2, missing=0.6, condition=(), draws={"independent": 1.0})
    _, _, (k, counted, _) = drawn_patterns(made)
    gone = (k[:, :3, :3] == K).all(-1)
    assert bool((gone | (k[:, :3, :3] == 0).all(-1)).all()) and not bool(counted[:, :3].any())
    assert abs(gone[:, 2].float().mean() - 0.3) < 0.03, "the present too: uniform shares up to 0.6"
    both = (gone[:, 1] & gone[:, 2]).float().mean()
    assert both > 0.1, "shares differ between sequences: E[share^2] is 0.12, and 0.09 if they did not"
    without = drawn_patterns(config(history=2, condition=(), draws={"independent": 1.0}))[2].k
    assert abs((k[:, 1:3, 3:] == 0).float().mean() - (without[:, 1:3, 3:] == 0).float().mean()) < 0.02


def test_observations_of_nan_are_absent_whatever_stands_elsewhere():
    made = config(history=2, missing=0.5, condition=())
    clean, start = past([4]), torch.zeros(1, LAYOUT.width)
    lost = dataclasses.replace(clean, observations=clean.observations.clone())
    lost.observations[:, 2] = torch.nan  # closes the token before the present
    start[:, :3] = torch.nan
    known = ask_pattern(made, start, 4, {}, torch.tensor([3]), lost)
    assert bool((known.level[0, 1:3, :3] == K).all()) and not bool(known.tokens[0, 1:3, :3].any())
    assert bool((known.level[0, 0, :3] == 0).all()) and bool((known.level[0, 1:3, 3:5] == 0).all())
    assert bool(known.mask[0, :3].all()), "what is absent stays absent"
    plan = make_plan(
        TrajectoryModel(made), torch.full((1, 3), torch.nan), Ask(), PlanConfig(steps=2), torch.Generator(), past=lost
    )
    assert bool(plan.observations.isfinite().all()) and bool(plan.actions.isfinite().all())


def test_levels_are_drawn_from_the_present_on():
    made = TrajectoryModel(config(history=3, condition=(), draws={"next_token": 1.0}))
    drawn = made._drawn(2_000, 6, torch.Generator().manual_seed(0), torch.full((2_000, 1), 5))
    assert drawn.k.shape == (2_000, 6) and not bool(drawn.k[:, :3].any()) and not bool(drawn.counted[:, :3].any())
    assert bool(drawn.counted[:, 3:].any(1).all()), "each sequence has a noisy token after the past"


def test_a_past_that_is_cut_is_that_of_an_episode_that_began_later():
    start = LAYOUT.state_token(torch.zeros(1, 3))
    for steps in (0, 2, 4):
        cut = ask_pattern(CHUNKS, start, 4, {}, torch.tensor([3]), past([4]).last(steps))
        later = ask_pattern(CHUNKS, start, 4, {}, torch.tensor([3]), past([steps]))
        assert torch.equal(cut.tokens, later.tokens) and torch.equal(cut.level, later.level)


def test_nothing_that_is_absent_reaches_a_plan():
    """Two pasts differ in what was not seen, and the plans do not."""
    torch.manual_seed(0)
    model = TrajectoryModel(CHUNKS).eval()
    torch.nn.init.normal_(model.diffusion.model.network.out.weight)

    def plan(before):
        ask = Ask(goal=torch.tensor([[7.0]]))
        how = PlanConfig(steps=2, uncertainty=0.0)
        generator = torch.Generator().manual_seed(0)
        return make_plan(model, torch.ones(1, 3), ask, how, generator, past=before).tokens

    unseen, other = past([0]), past([0])
    other.observations.fill_(-3e3)
    assert torch.equal(plan(unseen), plan(other)) and not torch.equal(plan(past([4])), plan(unseen))


def test_learning_by_patterns_lowers_the_loss_and_recovers_what_the_condition_says():
    """Tokens are the goal's number repeated: a model that reads its condition token draws it, one without does not."""
    torch.manual_seed(0)
    made = config(condition=("goal",), tokens=3, draws={"independent": 1.0}, unconditional=0.2)
    model = TrajectoryModel(made)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for _ in range(250):
        goals = torch.from_numpy(rng.choice([-1.0, 1.0], (64, 1))).float()
        observations = goals[:, None].expand(64, LAYOUT.steps(3), 3).clone()
        observations[:, 0] = 0
        batch = (observations, torch.zeros(64, 5, 1), torch.ones(64, 3) > 0, goals, torch.zeros(64))
        loss = model(batch, generator)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    goal = torch.tensor([[-1.0], [1.0]]).repeat(20, 1)
    drawn = make_plan(model, torch.zeros(40, 3), Ask(goal=goal), PlanConfig(uncertainty=0.0), generator)
    end = drawn.observations[:, -1, -1, 1]
    assert ((end > 0) == (goal[:, 0] > 0)).float().mean() > 0.9
    free = make_plan(model, torch.zeros(40, 3), Ask(), PlanConfig(uncertainty=0.0), generator).observations[
        :, -1, -1, 1
    ]
    assert 0.2 < (free > 0).float().mean() < 0.8, "unasked it draws both"


def things(**options):
    """A config of goals in the columns 0 to 2 of four, of two things."""
    layout = dataclasses.replace(LAYOUT, observation_dim=4)
    asked = {"condition": ("goal",), "goal_within": 1, "goal_groups": (2, 1), "parts": True, "plausibility": None}
    return TrajectoryModelConfig(layout, (0, 1, 2), 3, SMALL, levels=K, **asked | options)


def test_what_a_goal_leaves_open_is_absent_and_each_thing_has_a_level_of_its_own():
    made = things()
    assert made.part_of[:4] == (1, 1, 2, 0) and made.goal_group_of == (0, 0, 1)
    generator, shape = torch.Generator().manual_seed(0), (400, 3)
    drawn = Mixture({"independent": 1.0})(*shape, K, generator)
    given = {"goal": torch.tensor([7.0, 7.0, torch.nan]).expand(shape)}
    x0 = torch.zeros(*shape, made.layout.width)
    x, (k, *_) = draw_pattern(made, x0, drawn, torch.ones(shape) > 0, given, generator)
    known = k[:, 0, :3] == 0
    assert not known[:, 2].any() and bool((known[:, 0] == known[:, 1]).all())
    assert bool((x[:, 0, :3] == 7.0 * known).all())
    assert 0.8 < known[:, 0].float().mean() < 1, "9 in 10 are asked at all"


@pytest.mark.parametrize("kinds", [(2,), (40, 40)])
def test_each_thing_has_a_number_of_kinds_and_configurations_can_be_counted(kinds):
    assert things(kinds=(2, 3)).kinds == (2, 3)
    with pytest.raises(ValueError, match=r"kinds needs a number for each of the goal_groups, \(2, 1\), at most 1000"):
        things(kinds=kinds)


@pytest.mark.parametrize("alike", [((0, 1),), ((0, 1), (2,)), ((0,), (3,)), ((0, 1), (3, 2))])
def test_things_that_are_alike_have_as_many_columns_and_goals_at_the_same_places(alike):
    groups = {"goal_columns": (0, 2), "goal_groups": (1, 1)}
    made = dataclasses.replace(things(), **groups, alike=((0, 1), (2, 3)))
    assert made.alike == ((0, 1), (2, 3))
    with pytest.raises(ValueError, match="alike needs as many other columns of each of the goal_groups"):
        dataclasses.replace(made, alike=alike)
    with pytest.raises(ValueError, match="neither a history nor"):
        dataclasses.replace(made, history=1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"condition": ("goal",), "goal_groups": (1, 1)}, r"expected them to add up to 1, got \(1, 1\)"),
        ({"goal_groups": (1,)}, "need a goal in the condition token"),
        ({"parts": False, "condition": ("goal",)}, "need parts=True"),
        ({"parts": False, "history": 1}, "need parts=True"),
        ({"condition": ("goal",), "goal_within": 0}, "needs goal_columns, and goal_within"),
        ({"in_flight": 5}, "must be below the 5 tokens"),
        ({"acted": 6}, "at most the 5 tokens"),
        ({"acted": 1, "in_flight": 2}, "at least in_flight"),
        ({"history": 5}, "at least one more after the history"),
    ],
)
def test_configs_that_do_not_fit_are_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        config(**options)
