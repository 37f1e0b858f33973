"""Experiments, one file each, which the command `benchmarks/experiment.py` runs. A file has five names, or six:

- `CLAIM`: one sentence, written before the episodes are played; `PAGE`: the page docs/PAGE.md that shows the table.
- `parts(quick) -> {part: settings}`: what is played, in this order, as plain JSON.
- `play(settings) -> {"returns": [...], ...}`: plays one part.
- `conclude({part: settings and returns}) -> (held, table)`: whether the claim held, and the table in Markdown.
- `figure({part: settings and returns}) -> Figure`, if there is a plot.
"""
