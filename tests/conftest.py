"""What all tests need of their process: one thread, pictures without a display, and an interrupt that interrupts."""

import os
import signal

from dfplan.envs import sight

# Networks of tests are tiny, and OpenMP's threads keep a core busy while they wait. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

sight.without_display()  # before MuJoCo is imported

# In a shell's background Ctrl-C is ignored, and the commands that are tested would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
