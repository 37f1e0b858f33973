"""Progress of a run on the terminal: a bar for each agent on each environment, with the time left, and one for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

FEW = 8
"""Up to so many bars all are shown; of more, those that are being played, and one for all."""


class Bars:
    """``totals``: environment steps of each group, named (env id, agent), that are left to play."""

    def __init__(self, totals: Mapping[tuple[str, str], int]) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<30}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"),
            TimeElapsedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        self._totals, self._many = dict(totals), len(totals) > FEW
        several = len({env_id for env_id, _ in totals}) > 1
        self._all = self._progress.add_task("all", total=sum(totals.values()), visible=self._many)
        self._bars = {
            (env_id, agent): self._progress.add_task(
                f"{agent}, {env_id}" if several else agent, total=total, visible=not self._many
            )
            for (env_id, agent), total in totals.items()
        }
        self._done: Counter[tuple[str, str]] = Counter()
        self._running: dict[Hashable, tuple[tuple[str, str], int]] = {}

    def __enter__(self) -> Bars:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def advance(self, job: Hashable, group: tuple[str, str], steps: int) -> None:
        """A job has made further steps."""
        self._running[job] = group, self._running.get(job, (group, 0))[1] + steps
        self._show(group)

    def finish(self, job: Hashable, group: tuple[str, str], steps: int) -> None:
        """A job has ended, ``steps`` in all, whatever was told of it before."""
        self._running.pop(job, None)
        self._done[group] += steps
        self._show(group)

    def _show(self, group: tuple[str, str]) -> None:
        running: Counter[tuple[str, str]] = Counter()
        for one, steps in self._running.values():
            running[one] += steps
        # A batch that is played again, because its process died, has told some of its steps twice.
        made = {one: min(self._done[one] + running[one], total) for one, total in self._totals.items()}
        active = self._done[group] < self._totals[group]
        self._progress.update(self._bars[group], completed=made[group], visible=active or not self._many)
        self._progress.update(self._all, completed=sum(made.values()))
