"""The README and the pages of ``docs`` as their readers take them, and a shell to type into."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import NamedTuple

from tests.support.collector import clean_environment
from tests.support.repository import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = {"README.md": (REPOSITORY / "README.md").read_text(encoding="utf-8")} | {
    path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if "_build" not in path.parts
}
"""The text of the README and of each page of ``docs``, by its path there."""

_FENCED = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    language: str
    text: str


BLOCKS = [
    Block(page, found[2], textwrap.dedent(found[3]))
    for page, text in PAGES.items()
    for found in _FENCED.finditer(text)
]


def blocks(page: str, *languages: str) -> list[str]:
    """The blocks of a page in these languages."""
    return [each.text for each in BLOCKS if each.page == page and each.language in languages]


def spans() -> list[str]:
    """What stands as code in the running text, each once; the reference is made from the code."""
    found = (
        span
        for page, text in PAGES.items()
        if not page.startswith("reference/")
        for span in re.findall(r"`([^`]+)`", _FENCED.sub("", text))
    )
    return list(dict.fromkeys(" ".join(each.split()) for each in found))


class Reader:
    """Somebody at a shell in a new clone, with an environment for Python that has nothing in it.

    ``pip`` is uv's there, as pip itself would fetch everything anew.
    """

    def __init__(self, folder: Path) -> None:
        self.clone = folder / "tap-vero-segment"
        self.home = folder / "home"
        self.home.mkdir()
        self._python = folder / "python"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listed.stdout.split("\0"):
            if (REPOSITORY / name).is_file():
                (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, self.clone / name)
        self.type(f"uv venv --quiet {self._python}")
        pip = self._python / "bin" / "pip"
        pip.write_text('#!/bin/sh\nexec uv pip "$@"\n', encoding="ascii")
        pip.chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        found = clean_environment()
        return found | {
            "HOME": str(self.home),
            # What is there once does not have to be fetched again.
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv")),
            "VIRTUAL_ENV": str(self._python),
            "PATH": f"{self._python / 'bin'}:{found['PATH']}",
            **more,
        }

    def type(self, commands: str, **environment: str) -> str:
        """Type commands, which all have to end well; return what they print."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.clone,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}"
        return done.stdout
