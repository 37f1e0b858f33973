"""What a result depends on, as hashes: the code that decides about it, the weights, the configuration, the protocol.

The code of a row is the import closure of its modules: every module of dfplan, and of the user's own, that they import,
directly or not, wherever in a file the import stands, found by reading the files, without running them. Python's modules
and installed packages are nobody's own: their versions are recorded beside a result. Comments, docstrings, layout and what
only a type checker reads do not count: a better sentence leaves all results valid, a changed number none that it reaches.

What a user's agent reads besides, when it is made, is found by `dfplan.benchmarks.reading` and compared by `changed`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = "dfplan"


@dataclass(frozen=True)
class Key:
    """What a cell depends on, each a sha256 in hex: `dfplan.benchmarks.cells.Cell.key`."""

    code: str
    config: str
    weights: str | None
    protocol: str

    def to_dict(self) -> dict[str, str | None]:
        return asdict(self)


def code(modules: Iterable[str]) -> str:
    """Of the import closure of modules of dfplan, or of a user's. ValueError for a module that has no source file."""
    digest = hashlib.sha256()
    for name in sorted(closure(modules)):
        path = _found(name)
        digest.update(f"{name}\n{_text_hash(path, path.read_bytes())}\n".encode())
    return digest.hexdigest()


def changed(files: Mapping[str, str]) -> list[str]:
    """Those of the paths in ``files`` that are not, or no longer, files of these hashes, as `file` makes them."""
    return [path for path, known in files.items() if file(path) != known]


def file(path: str | Path) -> str | None:
    """Hash of a file: of what decides in it if it is Python's, else of its bytes; None if it cannot be read."""
    path = Path(path)
    try:
        if path.suffix == ".py":
            return _text_hash(path, path.read_bytes())
        return weights(path)
    except (OSError, ValueError):
        return None


def weights(path: str | Path) -> str:
    """Of a file's bytes. FileNotFoundError if there is none."""
    path = Path(path)
    found = path.stat()
    return _bytes_hash(path, found.st_mtime_ns, found.st_size)  # large files are not read again for every row


def config(values: Mapping[str, Any]) -> str:
    """Of plain data (numbers, strings, None, lists and mappings of them), whatever the order of its keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def closure(modules: Iterable[str]) -> set[str]:
    """The modules and all that they import of dfplan's and the user's own.

    ValueError, naming the file, for one that Python cannot read, and for a named module that has no source file.
    """
    waiting, found = list(modules), set()
    for name in waiting:
        _found(name)
    while waiting:
        name = waiting.pop()
        path = locate(name)
        if name in found or path is None or name == PACKAGE:  # which holds the version alone
            continue
        found.add(name)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += filter(_counts, _imports(path, path.read_bytes(), package))
    return found


def _counts(module: str) -> bool:
    """Whether a module is dfplan's or the user's own."""
    if module.split(".")[0] == PACKAGE:
        return True
    path = locate(module)
    return path is not None and is_own(path)


def is_own(path: Path) -> bool:
    """Whether a file is neither Python's nor of an installed package."""
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return not installed and not any(path.resolve().is_relative_to(folder) for folder in _PYTHON)


_PYTHON = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))


@cache
def locate(module: str) -> Path | None:
    """The source file of a module, which is not imported for that; None if there is none."""
    root, *rest = module.split(".")
    if root == PACKAGE and rest:
        # The rooms lie in folders of other names, so the first step asks the import system; below it, folders are names.
        root, rest = f"{PACKAGE}.{rest[0]}", rest[1:]
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        base = Path(folder).joinpath(*rest)
        for path in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def _found(module: str) -> Path:
    path = locate(module)
    if path is None:
        raise ValueError(f"the module {module!r} has no source file, so that its results could not be told from others")
    return path


@cache
def _imports(path: Path, source: bytes, package: str) -> set[str]:
    """Full names of what a file imports; of 'from a import b' both a and a.b, as b may be a module."""
    names: set[str] = set()
    for node in _walk(_parsed(path, source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join(filter(None, (*above, node.module)))
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {name for name in names | {name.rpartition(".")[0] for name in names if name.count(".") > 1} if name}


def _parsed(path: Path, source: bytes) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno or 1}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; nested too deep
        raise ValueError(f"{path} is not Python ({error})") from error


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker reads."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for other in node.orelse:
            yield from _walk(other)
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


@cache
def _text_hash(path: Path, source: bytes) -> str:
    tree = _parsed(path, source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def _is_text(line: ast.stmt) -> bool:
    """A docstring, or a sentence under a field: a string that is a statement of its own."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


@cache
def _bytes_hash(path: Path, modified: int, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
