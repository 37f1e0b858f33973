"""The benchmark's worker processes on this machine, any of which may die without a batch being lost or counted twice.

`Executor` is the face that this pool shares with a cluster (`dfplan.benchmarks.cluster`): jobs are submitted under names of
their own, and each name comes back once, with a value or with the exception that its function raised.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol

from dfplan.benchmarks import workers

DEATHS = 3
"""So many processes may die of one job before it is given up."""


class WorkersDiedError(RuntimeError):
    """A job killed every process that it was given to."""

    def __init__(self, job: Hashable) -> None:
        super().__init__(job)
        self.job = job

    def __str__(self) -> str:
        return f"{DEATHS} worker processes died of {self.job} (not enough memory?), so it is given up"


@dataclass(frozen=True)
class Done:
    """One job's end: its value, or the exception that it raised."""

    job: Hashable
    value: Any = None
    error: Exception | None = None

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class Executor(Protocol):
    def submit(self, job: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        """Have a worker call the function; function, arguments and value must be picklable, the job's name unique."""

    def finished(self, timeout: float) -> list[Done]:
        """Jobs that ended since the last call, waiting at most ``timeout`` seconds for the first. WorkersDiedError."""

    def steps(self) -> list[tuple[Hashable, int]]:
        """Environment steps made since the last call, by job, where the workers tell."""

    def close(self) -> None:
        """End all workers, whatever they do."""


@dataclass(frozen=True)
class Call:
    job: Hashable
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(eq=False)
class Worker:
    process: SpawnProcess
    pipe: Connection
    call: Call | None = None


class Processes:
    """Up to ``count`` processes, started when there is work for them; one that dies is replaced, its job done again."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self._workers: list[Worker] = []
        self._queue: deque[Call] = deque()
        self._deaths: Counter[Hashable] = Counter()
        self._steps: list[tuple[Hashable, int]] = []

    def submit(self, job: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        self._queue.append(Call(job, function, arguments))
        self._feed()

    def finished(self, timeout: float) -> list[Done]:
        self._feed()
        pipes = {worker.pipe: worker for worker in self._workers}
        ended = [self._receive(pipes[pipe]) for pipe in wait(list(pipes), timeout)]  # type: ignore[index]
        self._feed()
        return [done for done in ended if done is not None]

    def steps(self) -> list[tuple[Hashable, int]]:
        seen, self._steps = self._steps, []
        return seen

    def close(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()

    def _feed(self) -> None:
        """Give waiting jobs to idle workers, starting as many as are allowed and needed."""
        while self._queue:
            idle = next((worker for worker in self._workers if worker.call is None), None)
            if idle is None:
                if len(self._workers) == self._count:
                    return
                idle = self._start()
            call = self._queue[0]
            try:
                idle.pipe.send((call.function, call.arguments))
            except OSError:  # it died while idle
                self._forget(idle)
                continue
            idle.call = self._queue.popleft()

    def _start(self) -> Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()  # so that its death is the end of the pipe
        self._workers.append(Worker(process, ours))
        return self._workers[-1]

    def _receive(self, worker: Worker) -> Done | None:
        try:
            kind, content = worker.pipe.recv()
        except (EOFError, OSError):
            self._died(worker)
            return None
        assert worker.call is not None
        job = worker.call.job
        if kind == "steps":
            self._steps.append((job, content))
            return None
        worker.call = None
        return Done(job, **{kind: content})

    def _died(self, worker: Worker) -> None:
        self._forget(worker)
        if worker.call is not None:
            self._deaths[worker.call.job] += 1
            if self._deaths[worker.call.job] == DEATHS:
                raise WorkersDiedError(worker.call.job)
            self._queue.appendleft(worker.call)

    def _forget(self, worker: Worker) -> None:
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.kill()
        worker.process.join()


def _serve(pipe: Connection) -> None:
    """What a worker process does: answer calls until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    workers.report_to(lambda steps: pipe.send(("steps", steps)))
    try:
        while True:
            function, arguments = pipe.recv()
            try:
                answer = ("value", function(*arguments))
                ForkingPickler.dumps(answer)
            except Exception as error:
                answer = ("error", portable(error))
            pipe.send(answer)
    except (EOFError, OSError):  # the parent is gone
        return


def portable(error: Exception) -> Exception:
    """The exception, or one with the same text if it cannot travel between processes."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
