"""Experiments, one file each, for the command `benchmarks/experiment.py`. A file has five names, or six:

- `CLAIM`: one sentence, written before the episodes were played; `PAGE`: the page docs/PAGE.md that shows the table.
- `parts(quick) -> {part: settings}`: what is played, in this order, as plain JSON.
- `play(settings) -> {"returns": [...], ...}`: play one part.
- `conclude({part: settings and returns}) -> (held, table)`: whether the claim held, and the table in Markdown.
- `figure({part: settings and returns}) -> Figure`, if there is a plot.
"""
