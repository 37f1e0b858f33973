"""What all tests need of their process: one thread, and an interrupt that interrupts."""

import os
import signal

# Networks of tests are tiny, and OpenMP's threads keep a core busy while they wait. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in a shell's background; the commands that are tested would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
