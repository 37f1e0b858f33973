"""The benchmark: which episodes are played, by which rows, and what is reported of them."""
