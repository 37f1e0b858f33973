"""Offline reinforcement learning: one file for each algorithm."""
