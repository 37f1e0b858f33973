"""An encoder of pictures: it finds what moves in them, and which pictures are like none that it learned from."""

import numpy as np
import pytest
import torch

from dfplan.models.keypoints import PictureConfig, PictureEncoder

SIDE = 24


def squares(places):
    """Gray pictures (N, SIDE, SIDE, 1) of a bright square whose middle is at these places (N, 2), row and column."""
    rows = np.arange(SIDE)
    inside = np.abs(rows[None, :, None] - places[:, None, :]) <= 2  # (N, SIDE, 2)
    return (40 + 200 * (inside[:, :, None, 0] & inside[:, None, :, 1]))[..., None].astype(np.uint8)


@pytest.fixture(scope="module")
def places():
    return np.random.default_rng(0).integers(3, SIDE - 3, (256, 2))


@pytest.fixture(scope="module")
def encoder(places):
    torch.manual_seed(0)
    encoder = PictureEncoder(PictureConfig(("",), ((SIDE, SIDE, 1),), points=3, width=8))
    pictures = squares(places)
    encoder.begin(0, pictures)
    optimizer, generator = torch.optim.Adam(encoder.parameters(), lr=5e-3), torch.Generator().manual_seed(0)
    for _ in range(250):
        rows = torch.randint(len(pictures), (32,), generator=generator).numpy()
        loss = encoder((torch.from_numpy(pictures[rows]),), generator)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    encoder.eval().finish()
    encoder.usual[0] = float(encoder.encode(0, pictures)[1].max())
    return encoder


def test_the_place_of_a_square_is_a_linear_function_of_the_numbers(encoder, places):
    unseen = np.random.default_rng(1).integers(3, SIDE - 3, (64, 2))
    numbers, others = (encoder.encode(0, squares(at))[0] for at in (places, unseen))
    assert numbers.shape == (256, 6) and np.abs(numbers).max() <= 1

    def with_one(x):
        return np.hstack([x, np.ones((len(x), 1))])

    solution = np.linalg.lstsq(with_one(numbers), places, rcond=None)[0]
    assert np.abs(with_one(others) @ solution - unseen).mean() < 0.5, "pixels"


def test_a_frame_whose_picture_is_like_none_before_is_unknown(encoder, places):
    rng = np.random.default_rng(2)
    known = squares(places[:2])
    black, noise = np.zeros_like(known[:1]), rng.integers(0, 256, known[:1].shape, np.uint8)
    batch = np.concatenate([known, black, noise])
    found = encoder.numbers(batch, unknown=True)
    assert np.isnan(found).all(1).tolist() == [False, False, True, True] and np.isfinite(found[:2]).all()
    assert np.isfinite(encoder.numbers(batch, unknown=False)).all()
    assert np.isnan(encoder.numbers(noise[0], unknown=True)).all(), "one alone"


def test_what_comes_with_an_unknown_picture_is_unknown_too(encoder, places):
    named = PictureEncoder(PictureConfig(("eye",), ((SIDE, SIDE, 1),), points=3, width=8))
    named.load_state_dict(encoder.state_dict())
    pictures = np.concatenate([squares(places[:1]), np.zeros((1, SIDE, SIDE, 1), np.uint8)])
    found = named.numbers({"eye": pictures, "arm": np.ones((2, 4))}, unknown=True)
    assert np.isnan(found["arm"]).all(1).tolist() == [False, True] and found["eye"].shape == (2, 6)
    assert np.isfinite(named.numbers({"eye": pictures, "arm": np.ones((2, 4))}, unknown=False)["arm"]).all()


def test_large_pictures_are_reduced_and_uneven_ones_reconstructed():
    encoder = PictureEncoder(PictureConfig(("a", "b"), ((90, 60, 3), (7, 9, 1)), points=2, width=4, side=30))
    wide = np.zeros((2, 90, 60, 3), np.uint8), np.zeros((2, 7, 9, 1), np.uint8)
    losses = encoder(tuple(map(torch.from_numpy, wide)), torch.Generator())
    assert set(losses) == {"loss", "picture a", "picture b"} and encoder.each[0].size == (30, 20)
    assert encoder.encode(0, wide[0])[0].shape == (2, 4) and encoder.encode(1, wide[1])[1].shape == (2,)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"arm": np.zeros(3)}, "must be a Dict with the picture 'eye', got \\['arm'\\]"),
        (np.zeros((8, 8, 3), np.uint8), "must be a Dict with the picture 'eye', got ndarray"),
        (
            {"eye": np.zeros((8, 8, 3))},
            "entry 'eye' must be a picture \\(8, 8, 3\\) of uint8.*got float64 \\(8, 8, 3\\)",
        ),
        ({"eye": np.zeros((3, 8, 8), np.uint8)}, "got uint8 \\(3, 8, 8\\)"),
        ({"eye": np.zeros((2, 2, 8, 8, 3), np.uint8)}, "got uint8 \\(2, 2, 8, 8, 3\\)"),
    ],
)
def test_a_picture_of_another_form_is_refused_in_one_sentence(given, sentence):
    encoder = PictureEncoder(PictureConfig(("eye",), ((8, 8, 3),), points=2, width=4))
    with pytest.raises(ValueError, match=sentence):
        encoder.numbers(given, unknown=True)


def test_a_config_needs_a_shape_for_each_key():
    with pytest.raises(ValueError, match="each picture needs a key and a shape"):
        PictureConfig(("a", "b"), ((8, 8, 3),))
