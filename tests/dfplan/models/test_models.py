import pytest
import torch

from dfplan.models import Recurrent, RecurrentConfig, Transformer, TransformerConfig, build
from dfplan.models.embeddings import LevelEmbedding, sinusoid

B, T, C, K = 3, 12, 4, 50

CONFIGS = {
    "causal": TransformerConfig(width=32, depth=2, heads=4, causal=True),
    "bidirectional": TransformerConfig(width=32, depth=2, heads=4),
    "recurrent": RecurrentConfig(width=32, depth=2),
}
PREFIX = ["causal", "recurrent"]


def network(name, dtype=torch.float32):
    """A network whose every weight is drawn, so that nothing is hidden by what starts at zero."""
    torch.manual_seed(0)
    model = build(C, K, CONFIGS[name])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.to(dtype).eval()


def tokens(length=T, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, length, C, generator=g), torch.randint(0, K + 1, (B, length), generator=g)


@torch.no_grad()
@pytest.mark.parametrize("t", [0, 1, 5, T - 2])
@pytest.mark.parametrize("name", PREFIX)
def test_the_future_changes_no_bit_of_the_past(name, t):
    model, (x, k) = network(name), tokens()
    before = model(x, k)
    other_x, other_k = tokens(seed=1)
    x[:, t + 1 :], k[:, t + 1 :] = 100 * other_x[:, t + 1 :], other_k[:, t + 1 :]
    after = model(x, k)
    assert torch.equal(after[:, : t + 1], before[:, : t + 1])
    assert not torch.isclose(after[:, t + 1 :], before[:, t + 1 :]).all(-1).any(), "later tokens do change"


@torch.no_grad()
@pytest.mark.parametrize("name", PREFIX)
def test_the_past_and_the_level_alone_change_what_follows(name):
    model, (x, k) = network(name), tokens()
    before = model(x, k)
    x[:, 4] += 1
    moved = model(x, k)
    assert not torch.isclose(moved[:, 4:], before[:, 4:]).all(-1).any()
    k[:, 4] = (k[:, 4] + 25) % (K + 1)
    assert not torch.isclose(model(x, k)[:, 4:], moved[:, 4:]).all(-1).any()


@torch.no_grad()
def test_a_bidirectional_network_sees_the_future():
    model, (x, k) = network("bidirectional"), tokens()
    before = model(x, k)
    x[:, -1] += 1
    moved = model(x, k)
    assert not torch.isclose(moved, before).all(-1).any()
    k[:, -1] = (k[:, -1] + 25) % (K + 1)
    assert not torch.isclose(model(x, k), moved).all(-1).any()


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_any_number_of_tokens_and_sequences_by_themselves(name):
    model = network(name)
    for length in (1, 2, 7, 40):
        x, k = tokens(length)
        out = model(x, k)
        assert out.shape == (B, length, C) and out.dtype == torch.float32
        torch.testing.assert_close(model(x[1:2], k[1:2]), out[1:2])


@torch.no_grad()
@pytest.mark.parametrize("name", PREFIX)
def test_a_prefix_gives_what_the_whole_gives(name):
    model, (x, k) = network(name), tokens()
    whole = model(x, k)
    for t in range(1, T):
        torch.testing.assert_close(model(x[:, :t], k[:, :t]), whole[:, :t])


@torch.no_grad()
def test_the_transformer_knows_the_place_of_a_token():
    model, (x, k) = network("bidirectional"), tokens()
    turned = model(x.flip(1), k.flip(1)).flip(1)
    assert not torch.allclose(turned, model(x, k), atol=1e-3)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_learns(name):
    model, (x, k) = network(name), tokens()
    model(x, k).square().sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert silent == []


@pytest.mark.parametrize("name", CONFIGS)
def test_an_untrained_network_says_zero(name):
    out = build(C, K, CONFIGS[name])(*tokens())
    assert bool((out == 0).all())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares the fused kernel of a GPU with the plain product")
@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_a_gpu_gives_what_a_cpu_gives(name):
    model, (x, k) = network(name), tokens()
    expected = model(x, k)
    torch.testing.assert_close(model.cuda()(x.cuda(), k.cuda()).cpu(), expected, rtol=1e-3, atol=1e-3)


def test_build_takes_the_network_that_the_config_is_of():
    assert isinstance(build(C, K, CONFIGS["causal"]), Transformer)
    assert isinstance(build(C, K, CONFIGS["recurrent"]), Recurrent)


def test_near_levels_have_near_embeddings_and_none_are_alike():
    embedding = LevelEmbedding(K, 16)
    each = embedding(torch.arange(K + 1))
    assert each.shape == (K + 1, 16)
    gap = torch.cdist(each, each) + torch.eye(K + 1)
    assert gap.min() > 0
    assert torch.cdist(each[10:11], each[11:12]) < torch.cdist(each[10:11], each[40:41])
    k = torch.tensor([[0, 3], [50, 3]])
    assert torch.equal(embedding(k), each[k])


@pytest.mark.parametrize(("K", "parts"), [(64, 3), (256, 11), (2**20, 4)])
def test_the_embedding_of_parts_is_the_sum_of_each_part_at_its_level(K, parts):
    torch.manual_seed(0)
    embedding = LevelEmbedding(K, 4, parts=parts)
    k = torch.randint(0, K + 1, (4, 5, parts))
    k[1:3] = k[0]  # some rows are alike
    table = embedding.mlp(sinusoid(torch.arange(K + 1) * (1000.0 / K), 4)).unflatten(-1, (parts, 4))
    expected = sum(table[k[..., part], part] for part in range(parts))
    torch.testing.assert_close(embedding(k), expected)


def test_sinusoid_by_hand():
    found = sinusoid(torch.tensor([0.0, 2.0]), 4, longest=100.0)
    expected = torch.stack([torch.tensor([0.0, 0, 1, 1]), torch.tensor([2.0, 0.2, 2.0, 0.2])])
    expected[1] = torch.cat([expected[1, :2].sin(), expected[1, 2:].cos()])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"width": 30, "heads": 4}, "heads must divide the width into even parts, got 4 for a width of 30"),
        ({"width": 12, "heads": 4}, "heads must divide the width into even parts"),
        ({"heads": 0}, "heads must be greater than or equal to 1"),
        ({"depth": 0}, "depth must be greater than or equal to 1"),
        ({"depth": 10**9}, "depth must be less than or equal to 1000"),
        ({"width": 0}, "width must be greater than or equal to 1"),
        ({"width": 10**9}, "width must be less than or equal to 1048576"),
        ({"width": "x"}, "width must be a valid integer, got 'x'"),
        ({"octaves": -1}, "octaves must be greater than or equal to 0"),
    ],
)
def test_transformer_config_errors(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        TransformerConfig(**options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"width": 31}, "must be even"), ({"width": 0}, "width must"), ({"depth": 0}, "depth must")],
)
def test_recurrent_config_errors(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        RecurrentConfig(**options)
