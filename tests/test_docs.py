"""The documentation site has every page, and is built without a warning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
