"""Completion as a shell does it: the script that the command itself prints, sourced in bash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.collector import clean_environment

SCRIPTS = Path(sys.executable).parent
COMMANDS = ("vero-collector", "tap-vero-segment", "target-segment")

# What bash does at Tab: the words typed, the function that `complete` has registered, COMPREPLY.
AT_TAB = """
source "$SCRIPT"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
function=$(complete -p "$1" | sed -E 's/.* -F ([^ ]+) .*/\\1/')
compopt() { echo compopt "$@"; }
"$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def variable(command: str) -> str:
    return f"_{command.replace('-', '_').upper()}_COMPLETE"


def environment() -> dict[str, str]:
    environment = clean_environment()
    return environment | {"PATH": f"{SCRIPTS}:{environment['PATH']}"}


def script(command: str, shell: str = "bash") -> str:
    """The script that the documentation says to write."""
    done = subprocess.run(
        [command],
        env=environment() | {variable(command): f"{shell}_source"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("completion")
    found = {command: folder / f"{command}.bash" for command in COMMANDS}
    for command, path in found.items():
        path.write_text(script(command), encoding="utf-8")
    return found


def completed(scripts: dict[str, Path], cwd: Path, *words: str) -> list[str]:
    """What bash would offer for the last word."""
    done = subprocess.run(
        ["bash", "-c", AT_TAB, "bash", *words],
        cwd=cwd,
        env=environment() | {"SCRIPT": str(scripts[words[0]])},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("vero-collector", "s"), "sample serve status"),
        (("vero-collector", "serve", "--st"), "--store"),
        (("vero-collector", "dead-letters", "r"), "replay"),
        (("vero-collector", "serve", "--log-format", ""), "json text"),
        (("tap-vero-segment", "--c"), "--catalog --config"),
        (("target-segment", "--c"), "--config"),
    ],
)
def test_bash_is_offered_what_goes_on(
    scripts: dict[str, Path], tmp_path: Path, words: tuple[str, ...], offered: str
) -> None:
    assert sorted(completed(scripts, tmp_path, *words)) == offered.split()


@pytest.mark.parametrize("command", ["tap-vero-segment", "target-segment"])
def test_a_file_is_completed_as_a_file(
    scripts: dict[str, Path], tmp_path: Path, command: str
) -> None:
    assert completed(scripts, tmp_path, command, "--config", "")[0] == "compopt -o default"


@pytest.mark.parametrize("option", ["--discover", "--test"])
def test_tab_runs_nothing(scripts: dict[str, Path], tmp_path: Path, option: str) -> None:
    """Neither a connection nor a page of catalog because somebody presses Tab."""
    offered = completed(scripts, tmp_path, "tap-vero-segment", option, "--ca")
    assert offered == ["--catalog"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script_too(shell: str) -> None:
    text = script("vero-collector", shell)
    assert f"{variable('vero-collector')}={shell}_complete" in text
    if shutil.which(shell):
        subprocess.run([shell, "-n", "-c", text], check=True, timeout=60)
