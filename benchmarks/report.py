"""Everything that is generated from recorded results: the README's table, docs/results.md, the results of each
algorithm's page, and the plots in docs/.

    python -m dfplan.benchmarks.report            # rewrite them from benchmarks/recorded/
    python -m dfplan.benchmarks.report --check    # exit status 1 if one of them is not up to date

`to_markdown`, `to_rich` and `to_csv` are the tables of one environment's cells.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from dfplan import command
from dfplan.benchmarks.pages import Benchmark, documents, read
from dfplan.benchmarks.tables import to_csv, to_markdown, to_rich
from dfplan.whole_files import write_whole

__all__ = ["outdated", "rewrite", "to_csv", "to_markdown", "to_rich"]
RECORDED = Path("benchmarks", "recorded")


@dataclass(frozen=True)
class Arguments:
    root: Path = Path(".")
    """Folder of the repository: README.md, docs/ and benchmarks/recorded/ lie in it."""
    check: bool = False
    """Only say what is not up to date."""


def outdated(root: Path, benchmark: Benchmark) -> list[str]:
    """Paths, relative to the repository, of generated files that are not what the recorded results say.

    Text is compared as it is, plots by the numbers that they draw: matplotlib's bytes differ between versions.
    """
    from dfplan.benchmarks import plots

    numbers = plots.numbers(benchmark)
    texts = documents(root, benchmark, list(numbers))
    changed = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    changed += [root / "docs" / name for name in plots.stale(root / "docs", numbers)]
    return [str(path.relative_to(root)) for path in changed]


def rewrite(root: Path, benchmark: Benchmark) -> None:
    """Write all of them. Raises ValueError, before anything is written, for a document that cannot be filled."""
    from dfplan.benchmarks import plots

    numbers = plots.numbers(benchmark)
    texts = documents(root, benchmark, list(numbers))
    (root / "docs").mkdir(exist_ok=True)
    plots.write(root / "docs", numbers)
    for path, text in texts.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_whole(path, text)


@command.with_arguments(Arguments, __doc__)
def main(arguments: Arguments) -> int:
    benchmark = read(arguments.root / RECORDED)
    if not arguments.check:
        rewrite(arguments.root, benchmark)
        return 0
    found = outdated(arguments.root, benchmark)
    if found:
        print(f"not up to date: {', '.join(found)}; run python -m dfplan.benchmarks.report", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
