"""The documentation site has every page, and is built without a warning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).parents[1] / "docs"


def test_every_page_stands_in_the_sites_contents():
    listed = re.findall(r"^   ([\w-]+)$", (DOCS / "index.rst").read_text(encoding="utf-8"), flags=re.MULTILINE)
    pages = {path.stem for path in DOCS.iterdir() if path.suffix in (".md", ".rst")} - {"index"}
    assert len(listed) == len(set(listed)) and set(listed) == pages


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package, reason="the site's packages are not installed: pip install -e '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = (tmp_path / "api.html").read_text(encoding="utf-8")
    assert "dfplan.diffusion.sampler.step" in shown and "Raises ValueError" in shown
    assert "constraints.txt" in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "form", sorted((DOCS.parent / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda f: f.stem
)
def test_an_issue_form_is_whole(form):
    read = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= read.keys()
    kinds = {"textarea": {"id", "attributes"}, "input": {"id", "attributes"}}
    assert all(kinds[field["type"]] <= field.keys() and field["attributes"]["label"] for field in read["body"])


def test_the_hooks_before_a_commit_are_commands_that_are_there():
    (repo,) = yaml.safe_load((DOCS.parent / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    for hook in repo["hooks"]:
        words = hook["entry"].split()
        done = subprocess.run([sys.executable, "-m", *words, "--help"], capture_output=True, text=True)
        assert done.returncode == 0 and hook["id"] == f"{words[0]}-{words[1]}"
