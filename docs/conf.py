"""How Sphinx builds these pages: ``uv run --group docs sphinx-build -W docs docs/_build/html``."""

import tomllib
from pathlib import Path

PROJECT = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text("utf-8"))[
    "project"
]

project = PROJECT["name"]
version = release = PROJECT["version"]
copyright = "the contributors of tap-vero-segment"  # noqa: A001  # Sphinx's name for it
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
nitpicky = True
myst_heading_anchors = 3

html_theme = "furo"
html_title = PROJECT["name"]
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_theme_options = {
    "source_repository": PROJECT["urls"]["Repository"],
    "source_branch": "main",
    "source_directory": "docs/",
}

# `sphinx-build -b linkcheck` looks at the links that leave these pages.
linkcheck_ignore = [r"https?://(\w+\.)?example(/|$)", r"http://127\.0\.0\.1"]
linkcheck_timeout = 20
linkcheck_retries = 2
