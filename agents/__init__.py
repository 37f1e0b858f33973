"""Agents: one face (`base`), one file for each algorithm, and shipped weights. They see spaces and arrays, no environments."""
