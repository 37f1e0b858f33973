"""Everything that is generated from recorded results: the README's table, docs/results.md, the results of each
algorithm's page, the plots in docs/, and the manifest of the weights.

    python -m dfplan.benchmarks.report            # rewrite them from benchmarks/recorded/
    python -m dfplan.benchmarks.report --check    # exit status 1 if one of them is not up to date
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from dfplan import command
from dfplan.benchmarks.report import manifest, pages, plots
from dfplan.benchmarks.report.summaries import Summary
from dfplan.envs.registry import MAZES
from dfplan.whole_files import write_whole

RECORDED = Path("benchmarks", "recorded")


@dataclass(frozen=True)
class Arguments:
    """Options of the command."""

    root: Path = Path(".")
    """Folder of the repository: README.md, docs/ and benchmarks/recorded/ lie in it."""
    check: bool = False
    """Only say what is not up to date."""


def report(root: Path, summary: Summary, *, check: bool) -> list[str]:
    """Rewrite what is generated, or with `check` only look; paths, relative to `root`, of what was not up to date.

    Plots are of the mazes, in which all rows play: tables show everything.
    Texts are compared as they are, plots by the numbers that they draw. Raises ValueError, before anything is written, for a
    document that cannot be filled.
    """
    numbers = plots.numbers(summary.of(*(env_id for env_id in summary.environments if env_id in MAZES)))
    texts = pages.documents(root, summary, {name: plots.PLOTS[name].caption for name in numbers})
    texts |= manifest.documents(root, summary)
    old = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    stale = [root / "docs" / name for name in plots.stale(root / "docs", numbers)]
    if not check:
        plots.write(root / "docs", numbers)
        for path in old:
            write_whole(path, texts[path])
    return [str(path.relative_to(root)) for path in (*old, *stale)]


@command.with_arguments(Arguments, __doc__)
def main(arguments: Arguments) -> int:
    """Rewrite or check the generated files."""
    found = report(arguments.root, pages.read(arguments.root / RECORDED), check=arguments.check)
    if found and arguments.check:
        print(f"not up to date: {', '.join(found)}; run python -m dfplan.benchmarks.report", file=sys.stderr)
    return int(arguments.check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
