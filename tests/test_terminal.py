"""What is shown of long work, and the help of each command."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
from typing import TYPE_CHECKING

import click
import pytest

from tap_vero_segment import terminal
from tap_vero_segment.collector.cli import DOCS, EXAMPLES, main
from tests.support.collector import clean_environment, collector_command, run_collector
from tests.support.payloads import many
from tests.support.store import fill
from tests.support.stored import url_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    for name, command in sorted(group.commands.items()):
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


@pytest.mark.parametrize("path", [(), *commands(main)], ids=" ".join)
def test_help_is_not_cut_off_and_says_where_there_is_more(path):
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    context = click.Context(command, info_name=" ".join(path), terminal_width=80)
    text = command.get_help(context)
    _, _, after_usage = text.partition("\n\n")
    assert "..." not in after_usage
    assert f"Documentation:\n    {DOCS}/" in text
    assert max(len(line) for line in text.splitlines() if DOCS not in line) <= 80


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_is_a_command(name):
    for example in EXAMPLES[name][1]:
        group: click.Command = main
        words = example.split()
        while isinstance(group, click.Group):
            group = group.commands[words.pop(0)]
        group.make_parser(click.Context(group)).parse_args(words)


def test_a_line_now_and_then_where_there_is_no_terminal(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(terminal, "PROGRESS_SECONDS", 0.0)
    with terminal.progress("checking", 10) as advance:
        advance(4)
        advance(6)
    with terminal.progress("deleting", 0) as advance:
        advance(7)
    first, second, third = (record.message for record in caplog.records)
    assert first.startswith("checking: 4 of 10 events, ")
    assert second == "checking: 10 of 10 events, 0 s left"
    assert third == "deleting: 7 events"


def test_a_bar_on_a_terminal(tmp_path):
    fill(tmp_path / "store.db", many(20))
    leader, follower = pty.openpty()
    command = collector_command("check", "--integrity", "--store", url_of(tmp_path / "store.db"))
    with subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment() | {"TERM": "xterm"}, stdout=follower,
        stderr=follower, stdin=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.wait(timeout=60) == 0
    os.set_blocking(leader, False)
    shown = os.read(leader, 100_000).decode()
    os.close(leader)
    os.close(follower)
    assert "100%" in shown
    assert "All is well: store, clock, disk, integrity." in shown


def test_empty_lists_say_so(tmp_path):
    fill(tmp_path / "store.db", [])
    listed = run_collector("dead-letters", "list", "--store", "sqlite:///store.db", cwd=tmp_path)
    assert listed.stdout == "There are no dead letters.\n"
    as_json = run_collector(
        "dead-letters", "list", "--json", "--store", "sqlite:///store.db", cwd=tmp_path
    )
    assert as_json.stdout == ""


def test_json_that_is_made_printable_is_the_same_json():
    text = "a\x7fb\u202ec\u2028d\U000e0001e\x85f\n\tg"
    printed = terminal.printable(json.dumps(text, ensure_ascii=False), is_json=True)

    assert printed.isprintable()
    assert json.loads(printed) == text
