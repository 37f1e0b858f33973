"""Recorded data: readers, trajectories, windows and transitions, statistics, tokens."""
