"""``python -m tests.benchmarks``: how fast it is, as ratios measured side by side."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import click

from tests.benchmarks.cases import Bench, cases
from tests.benchmarks.chart import draw
from tests.benchmarks.harness import run, table


@click.command()
@click.option("--runs", default=5, show_default=True, help="Pairs of runs that count.")
@click.option("--scale", default=1.0, show_default=True, help="Multiplies the numbers of events.")
@click.option("--only", multiple=True, metavar="CASE", help="Only these cases; repeatable.")
@click.option(
    "--data",
    default=".benchmarks",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where generated data is kept.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write results there.")
@click.option("--chart", type=click.Path(path_type=Path), help="Draw an SVG there.")
def main(
    runs: int,
    scale: float,
    only: tuple[str, ...],
    data: Path,
    json_file: Path | None,
    chart: Path | None,
) -> None:
    """Run every case in turns with its yardstick; print the ratios."""
    data.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        bench = Bench(data.resolve(), scale, stack)
        chosen = [case for case in cases(bench) if not only or case.name in only]
        unknown = set(only) - {case.name for case in chosen}
        if unknown:
            msg = f"no such case: {', '.join(sorted(unknown))}"
            raise click.BadParameter(msg)
        results = []
        for case in chosen:
            click.echo(f"{case.name}: {case.title} / {case.yardstick_title} …", err=True)
            results.append(run(case, runs, results))
            click.echo(f"  {results[-1].ratio:.2f}", err=True)
    click.echo(table(results))
    figures = [result.to_json() for result in results]
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1))
    if chart is not None:
        draw(figures, chart)


main(prog_name="python -m tests.benchmarks")
