"""The README's chart: each ratio beside its goal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.benchmarks.harness import Result


def draw(results: Sequence[Result], path: Path) -> None:
    """Draw bars of ratio to goal on a logarithmic scale, into an SVG file."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.45 * len(results) + 1.2))
    shown = list(reversed(results))
    # Of a ratio that should stay below its goal, the other way round: further right is better.
    scores = [
        result.case.goal / result.ratio if result.case.at_most else result.ratio / result.case.goal
        for result in shown
    ]
    colours = ["#2a7f62" if result.reached else "#c0504d" for result in shown]
    bars = axes.barh(range(len(shown)), scores, color=colours, log=True)
    axes.axvline(1, color="#444444", linewidth=1)
    axes.set_yticks(
        range(len(shown)),
        [f"{result.case.title}\nto {result.case.yardstick_title}" for result in shown],
        fontsize=7,
    )
    axes.bar_label(
        bars, [f"{result.ratio:.2f} (goal {result.case.goal:g})" for result in shown], fontsize=7
    )
    axes.set_xlabel("ratio by its goal; right of the line: reached")
    axes.margins(x=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
