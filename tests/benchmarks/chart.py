"""The documentation's chart: each ratio beside its goal.

``python -m tests.benchmarks.chart OUT.svg FILE.json…`` draws what was written with ``--json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def draw(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw bars of ratio to goal on a logarithmic scale, into an SVG file.

    Args:
        results: As JSON has them.
        path: The file.
    """
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.45 * len(results) + 1.2))
    shown = list(reversed(results))
    # Of a ratio that should stay below its goal, the other way round: further right is better.
    scores = [
        result["goal"] / result["ratio"] if result["at_most"] else result["ratio"] / result["goal"]
        for result in shown
    ]
    colours = ["#2a7f62" if result["reached"] else "#c0504d" for result in shown]
    bars = axes.barh(range(len(shown)), scores, color=colours, log=True)
    axes.axvline(1, color="#444444", linewidth=1)
    axes.set_yticks(
        range(len(shown)),
        [f"{result['title']}\nto {result['yardstick']}" for result in shown],
        fontsize=7,
    )
    axes.bar_label(bars, [_label(result) for result in shown], fontsize=7)
    axes.set_xlabel("ratio by its goal; right of the line: reached")
    axes.margins(x=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


def _label(result: Mapping[str, Any]) -> str:
    bound = "at most" if result["at_most"] else "at least"
    return f"{result['ratio']:.2f} ({bound} {result['goal']:g})"


if __name__ == "__main__":
    chart, *files = map(Path, sys.argv[1:])
    draw([result for file in files for result in json.loads(file.read_text())], chart)
