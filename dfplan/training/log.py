"""The record of a training run: `log.jsonl`, TensorBoard scalars, and what the user sees on the terminal.

`log.jsonl` is the one source: on resume it is cut at the checkpoint's step and the TensorBoard file is written anew
from it, so that an interrupted run leaves the same record as an uninterrupted one.
"""

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dfplan.whole_files import write_whole

PLAIN_LINE_SECONDS = 15.0
BAR_UPDATE_SECONDS = 0.2
EVENTS_SUFFIX = ".dfplan"
"""End of the names of TensorBoard files that are written here, and so may be written anew."""


def read_records(path: str | Path, last_step: int | None = None) -> list[dict[str, Any]]:
    """The records of a `log.jsonl`, one dictionary a line, up to and including `last_step`.

    A last line that a killed process left half-written is dropped; a file that is not there has no records.
    """
    path = Path(path)
    records: list[dict[str, Any]] = []
    if not path.is_file():
        return records
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if last_step is not None and record["step"] > last_step:
            break
        records.append(record)
    return records


class RunLog:
    """Writes one record every few steps to `log.jsonl`, TensorBoard and the terminal; use it as a context manager.

    Args:
        run_dir: The folder of the run; TensorBoard events go to `run_dir/tensorboard`.
        step: The number of steps already done; later records of an interrupted run are removed.
        steps: The number of steps of the whole run.
        quiet: Show nothing on the terminal.
        enabled: False on all processes of a run but the first: nothing is written or shown.
    """

    def __init__(self, run_dir: Path, step: int, steps: int, quiet: bool = False, enabled: bool = True) -> None:
        self._enabled, self._quiet, self._steps = enabled, quiet, steps
        self._last_line = self._last_bar = 0.0
        self.records: list[dict[str, Any]] = []
        self._bar: Progress | None = None
        if not enabled:
            return
        path = run_dir / "log.jsonl"
        self.records = read_records(path, last_step=step)
        write_whole(path, "".join(json.dumps(record) + "\n" for record in self.records).encode())
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed in __exit__)
        self._tensorboard = _tensorboard_writer(run_dir / "tensorboard")
        for record in self.records:
            self._write_scalars(record)
        self._console = Console(soft_wrap=True)
        if self._console.is_terminal and not quiet:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}  {task.fields[rate]} steps/s  left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("training", total=steps, completed=step, loss="...", rate="...")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._enabled:
            self._file.close()
            self._tensorboard.close()

    def advance(self, step: int) -> None:
        """Move the progress bar; cheap enough for every step."""
        if self._bar is not None and time.monotonic() - self._last_bar > BAR_UPDATE_SECONDS:
            self._last_bar = time.monotonic()
            self._bar.update(self._task, completed=step)

    def write(self, record: dict[str, Any]) -> None:
        """Add one record: `step`, `seconds`, `steps_per_second`, `loss` and any other numbers."""
        if not self._enabled:
            return
        self.records.append(record)
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self._write_scalars(record)
        if not self._quiet:
            self._show(record)

    def say(self, sentence: str) -> None:
        """Print one line, on the first process only and not when quiet."""
        if self._enabled and not self._quiet:
            self._console.print(sentence, highlight=False, markup=False)

    def _show(self, record: dict[str, Any]) -> None:
        step, rate = record["step"], record["steps_per_second"]
        if self._bar is not None:
            self._bar.update(self._task, completed=step, loss=f"{record['loss']:.4g}", rate=f"{rate:.1f}")
        elif time.monotonic() - self._last_line > PLAIN_LINE_SECONDS or step == self._steps:
            self._last_line = time.monotonic()
            left = _duration((self._steps - step) / rate)
            self.say(f"step {step}/{self._steps}  loss {record['loss']:.4g}  {rate:.1f} steps/s  {left} left")

    def _write_scalars(self, record: dict[str, Any]) -> None:
        for name, value in record.items():
            if name not in ("step", "time"):
                self._tensorboard.add_scalar(name, value, record["step"], walltime=record["time"])


def _tensorboard_writer(folder: Path) -> Any:
    # Imported late: it takes a second, and only the first process of a training needs it.
    from torch.utils.tensorboard import SummaryWriter

    for stale in folder.glob(f"events.out.tfevents.*{EVENTS_SUFFIX}"):
        stale.unlink()
    return SummaryWriter(str(folder), flush_secs=10, filename_suffix=EVENTS_SUFFIX)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
