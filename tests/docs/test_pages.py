"""The pages: they are built without a warning, and say what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from tests.docs.reference import FOLDER, pages
from tests.packaging.test_hub import problems
from tests.packaging.uv import REPOSITORY
from tests.support import docs

pytestmark = pytest.mark.slow

URLS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
README = docs.PAGES["README.md"]


def test_the_pages_are_built_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", REPOSITORY / "docs", tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in docs.PAGES.keys() - {"README.md"}:
        assert (tmp_path / page).with_suffix(".html").is_file()


def test_the_committed_reference_is_the_one_that_is_generated():
    generated = pages()
    assert {*FOLDER.rglob("*.md")} == {*generated}
    for path, text in generated.items():
        said = "to mend it: uv run python -m tests.docs.reference"
        assert path.read_text(encoding="utf-8") == text, said


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_the_links_of_the_readme_work_on_any_site():
    links = re.findall(r"\]\(([^)]+)\)", README)
    known = 0
    for link in links:
        assert link.startswith("https://")
        for base, folder, suffix in (
            (f"{URLS['Documentation']}/en/latest/", docs.DOCS, ".md"),
            (f"{URLS['Repository']}/blob/main/", REPOSITORY, None),
            (f"{URLS['Repository']}/raw/main/", REPOSITORY, None),
        ):
            if link.startswith(base):
                path = folder / link.removeprefix(base)
                assert (path.with_suffix(suffix) if suffix else path).is_file(), link
                known += 1
    assert known > 15


@pytest.mark.parametrize("block", docs.blocks("README.md", "sh", "console"))
def test_what_the_readme_says_to_type_is_on_a_page_that_is_typed(block):
    typed = [each.text for each in docs.BLOCKS if each.page != "README.md"]
    assert block in typed


def test_meltano_takes_the_project_of_the_page_without_a_clone():
    (block,) = docs.blocks("start/without-a-clone.md", "yaml")
    assert problems(yaml.safe_load(block)) == []


OF_OTHER_PROGRAMS = {
    "uvx: command not found",
    "Need either the sqlalchemy_url to be set or host",
    "Altering columns is not supported",
    'Catalog "vero"',
}


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_code():
    source = " ".join(
        re.sub(r'"\s+f?"', "", path.read_text(encoding="utf-8"))
        for path in sorted((REPOSITORY / "tap_vero_segment").rglob("*.py"))
    )
    rows = re.findall(r"^\| (.+?) \|", docs.PAGES["operating/troubleshooting.md"], re.MULTILINE)
    messages = {span for row in rows for span in re.findall(r"`([^`]+)`", row) if " " in span}
    assert len(messages - OF_OTHER_PROGRAMS) > 15
    for message in messages - OF_OTHER_PROGRAMS:
        for part in re.split(r"…|: |\.env |\d+", message):
            assert part.strip() in source, message
