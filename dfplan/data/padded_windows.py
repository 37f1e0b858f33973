"""Windows of tokens that begin at every step, also near an episode's end: what was not recorded is padded and marked."""

from typing import NamedTuple

import numpy as np

from dfplan.data.places import Evenly
from dfplan.data.recorded import Followed, bounds, observations_at
from dfplan.data.trajectories import BoolArray, FloatArray, IntArray, Trajectories


class PaddedBatch(NamedTuple):
    """B windows of T tokens, which span S = (T - 1) * stride + 1 rows."""

    observations: FloatArray
    """(B, S, obs_dim). Rows outside the record repeat the nearest recorded one."""
    actions: FloatArray
    """(B, S, act_dim), likewise. The action of row j was taken in the observation of row j."""
    valid: BoolArray
    """(B, T): whether a token is recorded whole, with all its steps and the observation that closes it."""
    now: IntArray
    """(B,) flat index of the step that is token `history`; it is always recorded, and so is what followed it."""


class PaddedWindows:
    """Windows of `tokens` tokens, `stride` steps each, around every step of which the next observation was recorded.

    That step is 'now': the observation that closes token `history`. So `history` tokens lie before it. Token 0 is one
    observation alone, token i >= 1 the steps from row (i - 1) * stride to the observation in row i * stride, as in
    `dfplan.data.tokens`. Nothing is taken from other episodes. An observation after an episode's last action counts.
    `evenly` are columns of an observation: windows are drawn so that all places in them are equally often now.

    Raises ValueError for a number of tokens or a stride below 1, for a history that leaves no token, and for data in which
    no step is followed by an observation.
    """

    def __init__(
        self, data: Trajectories, tokens: int, stride: int, history: int = 0, evenly: tuple[int, ...] = ()
    ) -> None:
        if tokens < 1 or stride < 1 or not 0 <= history < tokens:
            raise ValueError(
                "Windows need tokens and stride of at least 1 and a history from 0 to tokens - 1, "
                f"not {tokens}, {stride} and {history}."
            )
        self.data, self.tokens, self.stride, self.history = data, tokens, stride, history
        self._followed = Followed(data)
        self._evenly = None
        if evenly:
            self._evenly = Evenly(data.observations[self._followed.steps(np.arange(len(self)))][:, list(evenly)])
        self._rows = np.arange(-history * stride, (tokens - 1 - history) * stride + 1)

    def __len__(self) -> int:
        """Number of windows."""
        return len(self._followed)

    def sample(self, rng: np.random.Generator, batch_size: int) -> PaddedBatch:
        """`batch_size` windows drawn with replacement."""
        return self.gather(
            rng.integers(len(self), size=batch_size) if self._evenly is None else self._evenly(rng, batch_size)
        )

    def gather(self, numbers: IntArray) -> PaddedBatch:
        """The windows of these numbers (B,), each in 0..len-1 (IndexError for others)."""
        now = self._followed.steps(np.asarray(numbers, np.int64))
        episodes, first, last = (part[:, None] for part in bounds(self.data, now))
        rows = now[:, None] + self._rows
        closing = rows[:, :: self.stride]
        opening = np.concatenate([closing[:, :1], closing[:, :-1]], axis=1)
        taken = np.clip(rows, first, self.data.episode_ends[episodes] - 1)
        return PaddedBatch(
            observations_at(self.data, episodes, np.clip(rows, first, last)),
            self.data.actions[taken],
            (opening >= first) & (closing <= last),
            now,
        )
