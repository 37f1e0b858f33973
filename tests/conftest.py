"""One thread for each process of tests: their networks are tiny, and OpenMP's threads keep a core busy while they wait."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
