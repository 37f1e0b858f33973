import pytest
import torch

from dfplan.models import RecurrentConfig, TransformerConfig, build
from dfplan.models.packing import Packed, packs, side_by_side

T, C, K = 12, 3, 20
LENGTHS = [12, 1, 7, 5, 5, 9, 2]
CONFIGS = {
    "bidirectional": (TransformerConfig(width=32, depth=2), ()),
    "causal": (TransformerConfig(width=32, depth=2, causal=True), ()),
    "parts": (TransformerConfig(width=32, depth=2), (0, 1, 1)),
}


def network(name):
    torch.manual_seed(0)
    config, parts = CONFIGS[name]
    model = build(C, K, config, parts)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def tokens(name, rows):
    g = torch.Generator().manual_seed(1)
    x, k = torch.randn(rows, T, C, generator=g), torch.randint(0, K + 1, (rows, T), generator=g)
    return (x, torch.stack([k, k.flip(1), k.flip(1)], -1)) if name == "parts" else (x, k)


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_each_sequence_gets_what_the_network_gives_it_alone(name):
    model, (x, k) = network(name), tokens(name, len(LENGTHS))
    found = Packed(model, LENGTHS, T)(x, k)
    for row, length in enumerate(LENGTHS):
        expected = model(x[row : row + 1, :length], k[row : row + 1, :length])[0]
        torch.testing.assert_close(found[row, :length], expected)
        assert bool((found[row, length:] == 0).all())


def test_what_lies_beyond_an_end_has_no_effect_and_no_gradient():
    model, (x, k) = network("bidirectional"), tokens("bidirectional", len(LENGTHS))
    x.requires_grad_()
    found = Packed(model, LENGTHS, T)(x, k)
    found.square().sum().backward()
    inside = torch.arange(T) < torch.tensor(LENGTHS).unsqueeze(1)
    assert bool((x.grad[~inside] == 0).all()) and bool((x.grad[inside].abs().sum(-1) > 0).all())


@torch.no_grad()
def test_futures_of_the_same_sequences_are_further_rows():
    x, k = tokens("bidirectional", 3 * len(LENGTHS))
    packed = Packed(network("bidirectional"), LENGTHS, T)
    each = [packed(x[n::3].contiguous(), k[n::3].contiguous()) for n in range(3)]
    order = torch.cat([torch.arange(n, len(x), 3) for n in range(3)])
    torch.testing.assert_close(packed(x[order], k[order]), torch.cat(each))


def test_sequences_share_rows_and_none_is_lost():
    rows = side_by_side(LENGTHS, T)
    assert sorted(one for row in rows for one in row) == list(range(len(LENGTHS)))
    assert all(sum(LENGTHS[one] for one in row) <= T for row in rows)
    assert len(rows) == 4  # 12, 9 + 1 + 2, 7 + 5, 5: no fewer hold 41 tokens
    assert side_by_side([3, 3], 3) == [[0], [1]]


def test_a_network_with_a_latent_is_not_packed():
    recurrent = build(C, K, RecurrentConfig(width=16, depth=1))
    assert not packs(recurrent) and packs(network("parts")) and packs(network("causal"))
    with pytest.raises(ValueError, match="a Recurrent cannot tell sequences of one row apart"):
        Packed(recurrent, [1, 2], 2)
