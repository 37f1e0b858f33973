"""The documentation site: `python -m sphinx -W -b html docs build/docs`."""

from sphinx.ext.napoleon import Config, GoogleDocstring

import dfplan

project = "dfplan"
author = "The dfplan developers"
copyright = f"2026, {author}"
release = version = dfplan.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"dfplan {release}"
html_show_sphinx = False

default_role = "code"  # in docstrings single backticks are code
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures stay short: shapes and units stand in the docstrings
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True


def setup(app):
    """Docstrings are plain text: their `Args:` and their indented examples are made what Sphinx reads."""
    app.connect("autodoc-process-docstring", read_docstring)


def read_docstring(app, what, name, obj, options, lines):
    """What is indented after a blank line becomes code, and arguments a list."""
    indented = [line.startswith("    ") for line in lines]
    begins = [i for i in range(1, len(lines)) if indented[i] and not lines[i - 1] and not _goes_on(indented, lines, i)]
    for i in reversed(begins):
        lines[i:i] = ["::", ""]
    if what in ("class", "function", "method"):
        lines[:] = str(GoogleDocstring(lines, Config(), app, what, name, obj, options)).splitlines()


def _goes_on(indented, lines, i):
    """Whether the line before the blank ones above line i is indented too: the same example goes on."""
    before = next((j for j in reversed(range(i)) if lines[j]), None)
    return before is not None and indented[before]
