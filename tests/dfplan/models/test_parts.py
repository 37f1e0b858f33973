import pytest
import torch
from torch import nn

from dfplan.models import RecurrentConfig, TransformerConfig, build
from dfplan.models.parts import ByParts

K = 8


class Shows(nn.Module):
    """Keeps what it is shown."""

    def forward(self, x, k):
        self.x, self.k = x, k
        return x


def test_the_network_gets_one_level_for_each_part_and_nothing_of_pure_noise():
    shows = Shows()
    k = torch.tensor([[[3, 0, 3, K], [K, K, K, 5]]])
    x = torch.randn(1, 2, 4)
    ByParts(shows, (0, 1, 0, 2), K)(x, k)
    assert shows.k.tolist() == [[[3, 0, K], [K, K, 5]]]
    assert torch.equal(shows.x, torch.where(k == K, 0.0, x))


def test_parts_have_embeddings_of_their_own():
    torch.manual_seed(0)
    network = build(2, K, TransformerConfig(width=16, depth=1, heads=2, octaves=0), (0, 1))
    nn.init.normal_(network.network.out.weight)
    x = torch.randn(1, 1, 2).expand(1, 1, 2)
    one, other = (network(x, torch.tensor([[levels]])) for levels in ([2, 5], [5, 2]))
    assert not torch.allclose(one, other)
    assert network(x, torch.tensor([[[2, 5]]])).shape == (1, 1, 2)


@pytest.mark.parametrize("config", [TransformerConfig(width=16, depth=1, heads=2), RecurrentConfig(width=16)])
def test_one_part_of_all_columns_is_a_token_of_one_level(config):
    torch.manual_seed(0)
    network, x, k = build(2, K, config, (0, 0)), torch.randn(2, 3, 2), torch.tensor([[0, 3, 5], [1, 1, 2]])
    assert torch.equal(network(x, k.unsqueeze(-1).expand(2, 3, 2)), network.network(x, k))


def test_numbers_without_gaps():
    with pytest.raises(ValueError, match="without gaps"):
        ByParts(Shows(), (0, 2), K)
