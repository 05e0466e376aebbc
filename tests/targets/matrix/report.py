"""The matrix as Markdown."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

from tests.targets.matrix.compare import Changes
from tests.targets.matrix.feed import PHASES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.targets.matrix.rows import Target
    from tests.targets.matrix.run import Outcome

    Results = Mapping[str, Mapping[str, Outcome]]
    """The outcomes of a target, by variant and phase."""


def describe(count: int, date: str) -> str:
    """Say how the matrix was made."""
    return (
        f"Made on {date} with {count:,} webhooks by tap-vero-segment {version('tap-vero-segment')}"
        f" with Python {platform.python_version()}; each target ran in an environment of its own.\n"
    )


def table(results: Iterable[tuple[Target, Results]]) -> str:
    """Return a line for each target and variant: its rows after each phase."""
    lines = [f"| target | context, properties | {' | '.join(PHASES)} |"]
    lines.append("|---|---|" + "---|" * len(PHASES))
    for target, variants in results:
        for variant, outcomes in variants.items():
            cells = " | ".join(_cell(outcomes[phase]) for phase in PHASES)
            lines.append(f"| {_title(target)} | {variant} | {cells} |")
    return "\n".join(lines) + "\n"


def _title(target: Target) -> str:
    name, _, with_ = target.name.partition(", ")
    release = target.package.partition("==")[2] or "of this project"
    return " ".join(filter(None, [name, release, f"({with_})" if with_ else ""]))


def _cell(outcome: Outcome) -> str:
    if not outcome.changes.count:
        return f"{outcome.rows:,}"
    failed = "ends with an error" in outcome.changes.count
    return f"**{'fails' if failed else f'{outcome.rows:,}'}**"


def faults(results: Iterable[tuple[Target, Results]]) -> str:
    """Return a paragraph for each target that changes or loses something."""
    lines = []
    for target, variants in results:
        said = [
            f"{variant}: {', '.join(changed)}"
            for variant, outcomes in variants.items()
            if (changed := _changed(outcomes.values()))
        ]
        if said or target.note:
            lines.append(f"- **{_title(target)}**: {'; '.join([*said, target.note]).strip('; ')}.")
    return "\n".join(lines) + "\n"


def _changed(outcomes: Iterable[Outcome]) -> list[str]:
    """Return how values differ, with their columns, the most frequent first."""
    changes = Changes()
    for outcome in outcomes:
        changes |= outcome.changes
    changed = []
    for change, _ in changes.count.most_common():
        columns = sorted(changes.columns[change])
        where = f" (`{'`, `'.join(columns)}`)" if 0 < len(columns) <= 3 else ""
        changed.append(change + where)
    return changed
