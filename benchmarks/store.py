"""What is on disk of the wanted results: whole ones, which can be used or not, and the batches of unfinished ones.

    results/maze2d-large/expert/untrained.json          a cell (`dfplan.benchmarks.results`)
    results/maze2d-large/expert/.untrained.jsonl        what is played of a cell that is not whole yet: a line a batch

Results are written whole or not at all, and batches line by line: a kill at any moment costs no more than the batches that
were being played. What cannot be used is said and played again; an old cell stays until the new one is whole. Processes
that write into the same environment's folder do so one after another (`dfplan.locks`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dfplan.benchmarks.protocol import Episodes, batches
from dfplan.benchmarks.results import (
    Cell,
    NewerSchemaError,
    Timing,
    adapter,
    cell_path,
    check_episodes,
    read_cell,
    read_timing,
    timing_path,
)
from dfplan.benchmarks.wanted import Wanted
from dfplan.envs.registry import short_name, task
from dfplan.locks import hold
from dfplan.whole_files import write_whole

_ELSEWHERE = "choose another --output"


def path_of(folder: str | Path, wanted: Wanted) -> Path:
    """Where the tree in `folder` keeps a wanted cell."""
    return cell_path(folder, wanted.env_id, wanted.name, wanted.training_seed)


def look(folder: Path, wanted: Wanted) -> Cell | str | None:
    """The wanted cell; why that which is there cannot be used, in words; None if there is none.

    Raises ValueError, with one sentence, where a cell must not be replaced by the wanted one: it is of a newer schema, of
    another agent, environment or block, or has more episodes.
    """
    path = path_of(folder, wanted)
    cell = _read(path, read_cell)
    if not isinstance(cell, Cell):
        return cell
    if (cell.agent, cell.env_id) != (wanted.name, wanted.env_id):
        raise ValueError(f"{path} is of {cell.agent} on {cell.env_id}, not of {wanted}: {_ELSEWHERE}")
    if cell.seeds[0] != wanted.seeds[0]:
        raise ValueError(f"{path} holds episodes from seed {cell.seeds[0]} on, not from {wanted.seeds[0]}: {_ELSEWHERE}")
    there, asked = len(cell.seeds), len(wanted.seeds)
    difference = wanted.changed(cell.key, cell.files)
    if difference is None and there >= asked:
        begun = Unfinished(folder, wanted).head.get("episodes") == asked
        return "an interrupted --fresh goes on" if begun else cell
    require_fewer(path, there, asked)
    return difference or f"it has {there} of {asked} episodes"


def require_fewer(path: Path, there: int, new: int) -> None:
    """ValueError if a cell has more episodes than those that are to replace it."""
    if there > new:
        would = f"{path} holds {there} episodes, which {new} new ones would replace"
        raise ValueError(f"{would}: {_ELSEWHERE}, or --episodes {there}")


def look_for_timing(folder: Path, wanted: Wanted, hardware: Mapping[str, Any]) -> Timing | str | None:
    """The wanted timing; why that which is there cannot be read, in words; None if there is none, or an older one.

    Raises ValueError for one of a newer schema, which must not be replaced.
    """
    found = _read(timing_path(folder, wanted.env_id, wanted.name), read_timing)
    if not isinstance(found, Timing):
        return found
    same = found.agent == wanted.name and found.hardware == hardware and found.decisions >= wanted.decisions
    return found if same and wanted.changed(found.key, found.files) is None else None


def _read(path: Path, read: Callable[[Path], Any]) -> Any:
    """What a file holds, why it cannot be read, or None if there is none. ValueError where none can be written."""
    taken = next((folder for folder in path.parents if folder.exists() and not folder.is_dir()), None)
    if taken is not None or (path.is_dir() and not path.is_symlink()):
        raise ValueError(f"{taken or path} is in the way of a result: {_ELSEWHERE}")
    try:
        return read(path) if path.exists() else None
    except NewerSchemaError as error:
        raise ValueError(f"{error}: {_ELSEWHERE}") from error
    except (ValueError, OSError) as error:
        return str(error)


def missing(folder: Path, cells: Sequence[Wanted], timings: Iterable[Wanted], fresh: bool = False) -> list[Wanted]:
    """Those of the cells that are to be played, all if `fresh`.

    Raises ValueError, with one sentence, where a file that is there must not be replaced, or none can be written.
    """
    for timing in timings:
        look_for_timing(folder, timing, {})
    found = {cell: look(folder, cell) for cell in cells}
    for wanted, cell in found.items():
        if fresh and isinstance(cell, Cell):
            require_fewer(path_of(folder, wanted), len(cell.seeds), len(wanted.seeds))
    return [wanted for wanted, cell in found.items() if fresh or not isinstance(cell, Cell)]


def require_writable(folder: Path) -> None:
    """ValueError where no folder of that path can be written: this is said now, not after minutes of playing."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"cannot write into the output folder {folder}: {existing} is a file")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"cannot write into the output folder {folder}: no permission to write in {existing}")


class Unfinished:
    """The file of a cell that is not whole yet: a line that says what it is to be, then a line for each batch."""

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        self.wanted, cell = wanted, path_of(folder, wanted)
        self.path = cell.with_name(f".{cell.stem}.jsonl")
        try:
            self._lines = self.path.read_bytes().splitlines()
        except OSError:
            self._lines = []
        self.head: dict[str, Any] = {}
        with suppress(ValueError, RecursionError):
            head = json.loads(self._lines[0]) if self._lines else None
            whole = isinstance(head, dict) and all(isinstance(head.get(name), dict) for name in ("key", "files"))
            self.head = dict(head) if whole and head is not None else {}

    def batches(self, say: Callable[[str], None] = lambda sentence: None) -> dict[int, Episodes]:
        """The batches by their index, where nothing has changed since; `say` is given damaged ones."""
        index_of = {tuple(seeds): index for index, seeds in enumerate(batches(self.wanted.seeds))}
        found = {}
        for number, line in enumerate(self._lines, start=1):
            try:
                if number == 1:
                    if self.wanted.changed(self.head["key"], self.head["files"]):
                        return {}
                    continue
                episodes = adapter(Episodes).validate_json(line, strict=True)
                check_episodes(self.path, episodes, task(self.wanted.env_id).max_episode_steps)
            except (ValueError, KeyError) as error:
                reason = str(error).splitlines()[0]
                say(f"what was played of {self.wanted} is played again: line {number} of {self.path} is damaged ({reason})")
                break
            if episodes.seeds in index_of:
                found[index_of[episodes.seeds]] = episodes
        return found

    def begin(self, files: Mapping[str, str], kept: Iterable[Episodes] = ()) -> None:
        """Begin the file anew with the batches that are kept, for an agent that has read these files."""
        head = {"episodes": len(self.wanted.seeds), "key": dict(self.wanted.key), "files": dict(files)}
        write_whole(self.path, b"".join(map(_line, (head, *map(asdict, kept)))))

    def add(self, episodes: Episodes) -> None:
        """Add a batch; when this returns, it is on the disk."""
        with open(self.path, "ab") as file:
            file.write(_line(asdict(episodes)))
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """The cell is whole."""
        self.path.unlink(missing_ok=True)


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, allow_nan=False).encode() + b"\n"


@contextmanager
def writing(folder: Path, env_ids: Iterable[str]) -> Iterator[None]:
    """Keep other runs out of the folders of some environments, after waiting for those that are in one.

    What killed runs left half written there is removed.
    """
    with ExitStack() as locks:
        for name in sorted(map(short_name, env_ids)):  # the same order in all runs: none waits in a circle
            place = folder / name
            place.mkdir(parents=True, exist_ok=True)
            locks.enter_context(hold(place / ".lock", f"which plays {name} in {folder} since {now()}", wait=True))
            for partial in place.rglob(".*.partial"):
                if not partial.is_dir() or partial.is_symlink():
                    partial.unlink(missing_ok=True)
        yield


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
