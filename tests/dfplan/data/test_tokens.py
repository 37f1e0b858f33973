import pytest
import torch

from dfplan.data.tokens import TokenLayout


def window(layout, tokens, batch=2):
    """Observations and actions that say their step and column: 100 * step + column, actions negative."""
    steps = layout.steps(tokens)
    step = 100.0 * torch.arange(steps)[:, None]
    observations = step + torch.arange(layout.observation_dim)
    actions = -(step + torch.arange(layout.action_dim)) - 1
    sequence = 10_000.0 * torch.arange(batch)[:, None, None]
    return observations + sequence, actions - sequence


LAYOUTS = [
    TokenLayout(3, 2, stride=4),
    TokenLayout(3, 2, stride=4, actions=True),
    TokenLayout(3, 2, stride=4, observations="all"),
    TokenLayout(3, 2, stride=4, observations="all", actions=True),
    TokenLayout(3, 2, stride=1, observations="all", actions=True),
    TokenLayout(1, 1, stride=1),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_packed_comes_back_in_order_of_time(layout):
    observations, actions = window(layout, 5)
    tokens = layout.pack(observations, actions)
    assert tokens.shape == (2, 5, layout.width)
    expected = observations[:, 1:] if layout.observations == "all" else observations[:, layout.stride :: layout.stride]
    unpacked = tokens[:, 1:, : layout.observation_width].reshape(2, -1, layout.observation_dim)
    assert torch.equal(unpacked, expected)
    assert torch.equal(tokens[..., layout.last], observations[:, :: layout.stride])
    assert torch.equal(tokens[:, 0], layout.state_token(observations[:, 0]))
    if layout.actions:
        assert torch.equal(layout.unpack_actions(tokens), actions[:, :-1])
        assert bool((tokens[:, 0, layout.observation_width :] == 0).all())


def test_a_bundle_by_hand():
    layout = TokenLayout(2, 1, stride=2, observations="all", actions=True)
    observations, actions = window(layout, 2, batch=1)
    # Steps 1 and 2, and the actions of steps 0 and 1 that led to them.
    assert layout.pack(observations, actions)[0].tolist() == [[0, 1, 0, 1, 0, 0], [100, 101, 200, 201, -1, -101]]


def test_the_bundles_of_the_papers_maze():
    layout = TokenLayout(4, 2, stride=10, observations="all", actions=True)
    assert (layout.width, layout.kept, layout.steps(61), layout.last) == (60, 10, 601, slice(36, 40))


def test_state_tokens_of_any_leading_shape():
    layout = TokenLayout(2, 1, stride=3, observations="all", actions=True)
    token = layout.state_token(torch.tensor([1.0, 2.0]))
    assert token.tolist() == [1, 2, 1, 2, 1, 2, 0, 0, 0]
    assert layout.state_token(torch.zeros(5, 4, 2)).shape == (5, 4, 9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_token_as_a_state_keeps_its_closing_observation_alone(layout):
    tokens = layout.pack(*window(layout, 3))
    which = torch.tensor([[False, True, False], [False, False, True]])
    shown = layout.as_states(tokens, which)
    assert torch.equal(shown[~which], tokens[~which])
    assert torch.equal(shown[which], layout.state_token(tokens[..., layout.last])[which])
    if layout.width == layout.observation_dim:
        assert torch.equal(shown, tokens), "a token of one observation is a state"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: TokenLayout(0, 1), "observation_dim must be greater than or equal to 1"),
        (lambda: TokenLayout(1, 1, stride=0), "stride must be greater than or equal to 1"),
        (lambda: TokenLayout(1, 1, observations="first"), "'last' or 'all', got 'first'"),
        (lambda: TokenLayout(3, 2, 4).pack(torch.zeros(1, 8, 3), torch.zeros(1, 8, 2)), "multiple of 4 .* got 8"),
        (lambda: TokenLayout(3, 2).unpack_actions(torch.zeros(1, 3, 3)), "hold no actions"),
    ],
)
def test_errors(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
