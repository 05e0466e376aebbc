"""``python -m tests.targets.matrix``: real targets, and what each of them changes or loses."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from tests.targets.matrix.destinations import Servers
from tests.targets.matrix.feed import Feed
from tests.targets.matrix.report import describe, faults, table
from tests.targets.matrix.rows import TARGETS, Unavailable
from tests.targets.matrix.run import run

QUICK = 400
FULL = 3_000
BEGINS, ENDS = "<!-- the matrix begins -->", "<!-- the matrix ends -->"


@click.command()
@click.option("--only", multiple=True, metavar="NAME", help="Only these targets; repeatable.")
@click.option("--quick", is_flag=True, help=f"{QUICK} webhooks instead of {FULL:,}.")
@click.option(
    "--markdown",
    type=click.Path(path_type=Path),
    help="A page to write the matrix into, between its comments.",
)
def main(only: tuple[str, ...], markdown: Path | None, *, quick: bool) -> None:
    """Load the same events with every target; print what each of them changes or loses."""
    targets = [target for target in TARGETS if not only or target.name in only]
    if unknown := set(only) - {target.name for target in targets}:
        known = ", ".join(target.name for target in TARGETS)
        msg = f"no such target: {', '.join(sorted(unknown))}; there are: {known}"
        raise click.BadParameter(msg)
    count = QUICK if quick else FULL
    variants = dict.fromkeys(variant for target in targets for variant in target.changes)
    results = {}
    untried = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "feed").mkdir()
        click.echo(f"{count:,} webhooks and the tap …", err=True)
        feed = Feed(folder / "feed", count, variants)
        with Servers(folder) as servers:
            for target in targets:
                click.echo(f"{target.name} …", err=True)
                try:
                    target.install()
                    results[target.name] = {
                        variant: run(target, variant, feed, folder / target.name / variant, servers)
                        for variant in target.changes
                    }
                except (Unavailable, pytest.skip.Exception) as error:
                    untried.append(f"- {target.name} was not tried: {error}.\n")
    tried = [(target, results[target.name]) for target in targets if target.name in results]
    text = "\n".join(
        [
            describe(count, f"{datetime.now(UTC):%d %B %Y}"),
            table(tried),
            faults(tried),
            "".join(untried),
        ]
    )
    click.echo(text)
    if markdown is not None:
        page = markdown.read_text(encoding="utf-8")
        before, rest = page.split(BEGINS)
        page = f"{before}{BEGINS}\n{text}\n{ENDS}{rest.split(ENDS)[1]}"
        markdown.write_text(page, encoding="utf-8")


main(prog_name="python -m tests.targets.matrix")
