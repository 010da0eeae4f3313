"""Figures told elsewhere, recomputed from the parts they were told with.

    check_figures(declared, {"madison": rows})
    → [Checked("noisy-student", "Hedges' g", 1.566, 1.568, …, holds=True), …]

Each is set beside what was told; one that does not follow is named with the reason that its declaration gives. A figure
that is declared to hold and does not, or to differ and holds, is not `as_declared`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from foundry_pipeline.declarations import reported as r
from foundry_pipeline.declarations.sources import ReportedScore
from foundry_pipeline.errors import DeclarationError
from foundry_pipeline.statistics import formulas
from foundry_pipeline.statistics.effects import Sample, hedges_g
from foundry_pipeline.statistics.proportions import wilson
from foundry_pipeline.statistics.significance import student, t_interval


@dataclass(frozen=True)
class Checked:
    """One number: recomputed (None where there is nothing to compute it from), as told, and what follows."""

    figure: str
    part: str
    recomputed: float | None
    told: float
    tolerance: float
    expect: r.Expectation
    note: str = ""
    low: float | None = None
    high: float | None = None

    @property
    def holds(self) -> bool:
        # A last bit of slack: tolerances are half a printed digit, and figures lie on that very edge.
        return self.recomputed is not None and abs(self.recomputed - self.told) <= self.tolerance * (1 + 1e-9) + 1e-12

    @property
    def as_declared(self) -> bool:
        return self.holds == (self.expect == "holds")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"holds": self.holds, "as_declared": self.as_declared}


def check_figures(
    declared: Iterable[r.ReportedFigures], scores: Mapping[str, Iterable[ReportedScore]]
) -> list[Checked]:
    """Every figure of every file, in order. `scores` maps a character to its reported rows.

    Raises DeclarationError for a figure named twice, an unknown character, or an unknown row.
    """
    found: list[Checked] = []
    seen: set[str] = set()
    for document in declared:
        for figure in document.figures:
            if figure.figure in seen:
                raise _wrong(f"the figure `{figure.figure}` is declared twice")
            seen.add(figure.figure)
            found.extend(_check(figure, scores))
    return found


def _check(figure: r.Figure, scores: Mapping[str, Iterable[ReportedScore]]) -> Iterator[Checked]:
    if isinstance(figure, r.TwoSamples):
        yield from _two_samples(figure)
    elif isinstance(figure, r.SuiteScores):
        if figure.character not in scores:
            raise _wrong(f"`{figure.figure}` is of the character `{figure.character}`, which there is none of")
        yield from _suite_scores(figure, list(scores[figure.character]))
    elif isinstance(figure, r.OneFigure):
        low = high = None
        if isinstance(figure, r.Share):
            rate = wilson(figure.count, figure.n)
            value, low, high = figure.count / figure.n, rate.low, rate.high
        elif isinstance(figure, r.Ratio):
            value = figure.numerator / figure.denominator
        elif isinstance(figure, r.ChangeRate):
            value = formulas.change_rate(figure.before, figure.after, figure.over)
        elif isinstance(figure, r.Variance):
            value = formulas.population_variance(figure.values)
        elif isinstance(figure, r.MetaLearning):
            early, late = figure.early, figure.late
            value = formulas.meta_learning_score(early.improvement, late.improvement, early.forgetting, late.forgetting)
        else:
            raise TypeError(f"no formula for {type(figure).__name__}")
        yield Checked(
            figure.figure, figure.of, value, figure.told, figure.tolerance, figure.expect, figure.because, low, high
        )


def _two_samples(figure: r.TwoSamples) -> Iterator[Checked]:
    sides = {name: Sample(s.mean, s.sd, s.n) for name, s in (("a", figure.a), ("b", figure.b))}
    test, effect = student(sides["a"], sides["b"]), hedges_g(sides["a"], sides["b"])
    assert test.t is not None  # declared deviations are above zero
    assert test.p is not None
    assert effect is not None
    wide, exact = figure.tolerance, figure.p_tolerance

    def one(part: str, value: float, told: float, tolerance: float, bounds: tuple[Any, Any] = (None, None)) -> Checked:
        of = f"{figure.of}: {part}"
        return Checked(figure.figure, of, value, told, tolerance, figure.expect, figure.because, *bounds)

    yield one("Student's t", test.t, figure.t, wide)
    yield one("p", test.p, figure.p, exact)
    yield one("Hedges' g", effect.g, figure.g, wide, (effect.low, effect.high))
    for name, told in (("a", figure.a), ("b", figure.b)):
        low, high = t_interval(sides[name])
        for part, value, bound in (("lower", low, told.low), ("upper", high, told.high)):
            if bound is not None:
                yield one(f"{part} bound of mean {name}", value, bound, wide)


def _suite_scores(figure: r.SuiteScores, rows: list[ReportedScore]) -> Iterator[Checked]:
    known = {row.row for row in rows}
    for name in (*figure.not_reproducible, *figure.as_raw):
        if name not in known:
            raise _wrong(f"`{figure.figure}` names the row `{name}`, which {figure.character} has none of")
    for row in rows:

        def one(
            part: str,
            value: float | None,
            told: float,
            *,
            row: ReportedScore = row,
            tolerance: float | None = None,
            because: str = "",
        ) -> Checked:
            expect: r.Expectation = "not_reproducible" if because else figure.expect
            note = because or figure.because
            return Checked(row.row, part, value, told, tolerance or figure.tolerance, expect, note)

        raw = _mean(row.categories, figure.categories)
        if row.raw is not None and raw is not None:
            yield one("raw overall from categories", raw, row.raw)
        by_difficulty = _mean(row.difficulties, figure.difficulties)
        if row.raw is not None and by_difficulty is not None:
            yield one("raw overall from difficulties", by_difficulty, row.raw)
        if row.corrected is None:
            continue
        corrected = _mean(row.corrected_categories, figure.categories)
        if row.row in figure.not_reproducible:
            because = figure.not_reproducible[row.row]
            yield one("corrected overall", corrected, row.corrected, because=because)
        elif row.row in figure.as_raw:
            tolerance = figure.as_raw[row.row]
            yield one("corrected overall, given as the raw one", raw, row.corrected, tolerance=tolerance)
        else:
            yield one("corrected overall from categories", corrected, row.corrected)


def _mean(parts: Mapping[Any, float], sizes: Mapping[Any, int]) -> float | None:
    """The weighted mean; None unless every group has a part: a missing one is no zero."""
    if set(parts) != set(sizes) or not all(math.isfinite(v) for v in parts.values()):
        return None
    return formulas.weighted_mean(parts, sizes)


def _wrong(what: str) -> DeclarationError:
    return DeclarationError(what, where="sources/reported/", mend="correct the named figure, then run `foundry check`")
