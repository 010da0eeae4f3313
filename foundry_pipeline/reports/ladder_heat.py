"""The heat maps of the ladder's page: scores by category, difficulty and component, measured apart from reported.

heat_maps(data)[0].rows[0]   → ("madison_dpo_v1, adapter on base", (("3.22", 1), ("2.27", 1), …))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from foundry_pipeline.declarations.common import CATEGORIES, DIFFICULTIES
from foundry_pipeline.evaluation.scoring import COMPONENTS
from foundry_pipeline.reports.data import label
from foundry_pipeline.reports.ladder_data import LadderData, Rung
from foundry_pipeline.reports.wording import NONE, number

LEVELS = 6  # grounds of a heat map


@dataclass(frozen=True)
class HeatMap:
    """Rows × columns of scores from 0 to 10; a cell is (text, level of its ground), the level None where there is none."""

    id: str
    title: str
    caption: str
    told: bool
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, int | None], ...]], ...]


def heat_maps(data: LadderData) -> list[HeatMap]:
    """Categories, difficulties and components of what was measured; categories and difficulties of what was told."""
    held = [r for r in data.rungs if r.measured]
    told = [r for r in data.rungs if r.reported]
    judged = f"Measured here, scored by {' and '.join(data.judges)}: mean of its questions, 0 to 10."
    reported = "Reported elsewhere, not measured here: as printed there."

    def mean(group: str) -> Callable[[Rung, str], float | None]:
        return lambda rung, name: ((rung.measured or {}).get(group) or {}).get(name, {}).get("mean")

    def printed(group: str) -> Callable[[Rung, str], float | None]:
        return lambda rung, name: ((rung.reported or {}).get(group) or {}).get(name)

    made = [
        _heat("heat-categories", "Categories, measured here", judged, held, CATEGORIES, mean("categories"), told=False),
        _heat("heat-difficulties", "Difficulties, measured here", judged, held, DIFFICULTIES, mean("difficulties"), told=False),
        _heat("heat-components", "Components, measured here", judged, held, COMPONENTS, mean("components"), told=False),
        _heat("heat-categories-told", "Categories, reported", reported, told, CATEGORIES, printed("categories"), told=True),
        _heat("heat-difficulties-told", "Difficulties, reported", reported, told, DIFFICULTIES, printed("difficulties"), told=True),
    ]  # fmt: skip
    return [m for m in made if m is not None]


def _heat(
    name: str,
    title: str,
    caption: str,
    rungs: Sequence[Rung],
    columns: Iterable[str],
    value: Callable[[Rung, str], float | None],
    *,
    told: bool,
) -> HeatMap | None:
    shown = [c for c in columns if any(value(r, c) is not None for r in rungs)]
    rows = tuple(
        (_titled(r, told), tuple(_cell(value(r, c)) for c in shown))
        for r in rungs
        if any(value(r, c) is not None for c in shown)
    )
    return HeatMap(name, title, caption, told, tuple(label(c) for c in shown), rows) if rows else None


def _titled(rung: Rung, told: bool) -> str:
    if not told or rung.reported is None:
        return rung.title
    return f"{rung.reported['run']}, {rung.reported['serving'] or 'serving not told'}"


def _cell(value: float | None) -> tuple[str, int | None]:
    return (NONE, None) if value is None else (number(value), min(LEVELS - 1, max(0, int(value / 10 * LEVELS))))
