"""An agent that, told so by a file 'fault' in the working folder, kills a process as it begins a certain batch.

The file holds a word and the batch's first seed: 'worker', its own process; 'driver', that which started it; 'interrupt',
Ctrl-C for that one; 'always', its own process, again and again. Every batch that is begun is noted in 'begun'.
"""

import os
import signal
import time
from pathlib import Path

from dfplan.benchmarks.baselines import RandomAgent


class Faulty(RandomAgent):
    def reset(self, goal=None, seed=None):
        super().reset(goal, seed)
        fault = Path("fault")
        if seed is None or seed < 100_000:  # a trial
            return
        with open("begun", "a") as file:
            file.write(f"{seed}\n")
        if not fault.exists() or int(fault.read_text().split()[1]) != seed:
            return
        kind = fault.read_text().split()[0]
        if kind != "always":
            fault.unlink()
        if kind in ("worker", "always"):
            os.kill(os.getpid(), signal.SIGKILL)
        parent = os.getppid()
        os.kill(parent, signal.SIGKILL if kind == "driver" else signal.SIGINT)
        while os.getppid() == parent:  # until the driver ends it, or is gone itself
            time.sleep(0.05)


class Failing(RandomAgent):
    def act(self, observation):
        return {}["action"]
