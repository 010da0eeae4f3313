"""The plots and heat maps of the ladder's page. What was measured and what was told are never in one drawing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foundry_pipeline.reports import svg
from foundry_pipeline.reports.data import mode_title
from foundry_pipeline.reports.figures import SCALE, Figure
from foundry_pipeline.reports.ladder_data import LadderData, Rung
from foundry_pipeline.reports.scatter import Point, scatter
from foundry_pipeline.reports.wording import NONE, number, percent, span
from foundry_pipeline.statistics.stated import stated

TOLD = "told"


def series(mode: str) -> str:
    """The class of a serving mode; a named checkpoint looks like another adapter."""
    return mode if mode in svg.SHAPES else "f16"


def ladder_figures(data: LadderData) -> list[Figure]:
    """Every plot that the rows allow."""
    made = [
        _progress(data),
        _told(data),
        _against(data),
        _breaks(data),
        *_rates(data),
        _return(data),
        _pairs(data),
        _held_out(data),
    ]
    return [figure for figure in made if figure is not None]


def _judged(data: LadderData) -> str:
    return f"by {' and '.join(data.judges)}"


def _progress(data: LadderData) -> Figure | None:
    groups, rows = [], []
    bases = {_base_key(r): r for r in data.measured if (r.measured or {}).get("base")}
    for rung in bases.values():
        base = (rung.measured or {})["base"]
        title = f"untuned, {rung.row['base_title'].split(' (')[0]}"
        groups.append(_group(title, "base", base["mean"], base["low"], base["high"], ""))
        rows.append((title, NONE, number(base["mean"]), span(base["low"], base["high"]), NONE))
    for rung in data.measured:
        m = rung.measured or {}
        verdict = m["against_base_verdict"] or ""
        groups.append(_group(rung.title, series(rung.mode), m["overall"], m["low"], m["high"], verdict))
        rows.append((rung.run, mode_title(rung.mode), number(m["overall"]), span(m["low"], m["high"]), verdict or NONE))
    if not groups:
        return None
    title = "Score progression, measured here"
    return Figure(
        "fig-progress",
        title,
        f"Overall score of every row in the order of the record, scored {_judged(data)}; whiskers are "
        f"{percent(data.confidence, 0)} intervals over questions. At the right what may be said of it beside its own "
        "untuned base.",
        svg.dot_plot("fig-progress", title, groups, ticks=SCALE, axis=f"score {_judged(data)}, 0 to 10"),
        ("run", "serving mode", "score", "interval", "verdict"),
        tuple(rows),
    )


def _base_key(rung: Rung) -> tuple[Any, ...]:
    base = (rung.measured or {})["base"]
    return (rung.row["base_title"], base["mean"], base["low"], base["high"])


def _group(title: str, of: str, mean: float | None, low: float | None, high: float | None, note: str) -> svg.Group:
    if mean is None:
        return svg.Group(title, (), note or "no score")
    bounds = span(low, high)
    mark = svg.Mark(of, mean, low, high, number(mean), f"{title}: {number(mean)}" + (f" ({bounds})" if bounds else ""))
    return svg.Group(title, (mark,), note)


def _told(data: LadderData) -> Figure | None:
    groups, rows = [], []
    for rung in data.rungs:
        told = rung.reported
        if told is None or told["raw"] is None:
            continue
        marks = [
            svg.Mark(of, told[kind], None, None, number(told[kind]), f"{told['row']}, {kind}: {told[kind]}")
            for kind, of in (("raw", TOLD), ("corrected", "corrected"))
            if told[kind] is not None
        ]
        groups.append(svg.Group(f"{told['run']}, {told['serving'] or 'serving not told'}", tuple(marks)))
        rows.append((told["run"], told["serving"] or NONE, number(told["raw"]), number(told["corrected"])))
    if not groups:
        return None
    title = "Score progression, reported elsewhere"
    return Figure(
        "fig-told",
        title,
        f"Not measured here: {' and '.join(data.reported_judges) or 'another judge'}, other weights, other hardware. Diamonds "
        "are raw scores, the judge's own marks; circles corrected ones, weighted means of its components. No interval was "
        "reported.",
        svg.dot_plot("fig-told", title, groups, ticks=SCALE, axis="reported score, 0 to 10"),
        ("run", "serving", "reported raw", "reported corrected"),
        tuple(rows),
    )


def _gap(m: Mapping[str, Any]) -> dict[str, Any]:
    names = {"difference": "against_base", "low": "against_base_low", "high": "against_base_high"}
    return {name: m[key] for name, key in names.items()} | {"verdict": m["against_base_verdict"]}


def _against(data: LadderData) -> Figure | None:
    held = [r for r in data.measured if (r.measured or {})["against_base"] is not None]
    if not held:
        return None
    groups, rows, ends = [], [], [0.0]
    for rung in held:
        gap = _gap(rung.measured or {})
        ends += [v for v in (gap["difference"], gap["low"], gap["high"]) if v is not None]
        text = number(gap["difference"], sign=True)
        mark = svg.Mark(
            series(rung.mode), gap["difference"], gap["low"], gap["high"], text, f"{rung.title}: {stated(gap)}"
        )
        groups.append(svg.Group(rung.title, (mark,), gap["verdict"]))
        rows.append((rung.title, text, span(gap["low"], gap["high"], sign=True), gap["verdict"]))
    title = "Difference from the untuned base"
    return Figure(
        "fig-against",
        title,
        f"Question by question, with {percent(data.confidence, 0)} intervals; scored {_judged(data)}.",
        svg.dot_plot(
            "fig-against",
            title,
            groups,
            ticks=svg.nice_ticks(min(ends), max(ends), 6),
            axis=f"difference in score {_judged(data)}",
            zero=True,
        ),  # fmt: skip
        ("served as", "difference", "interval", "verdict"),
        tuple(rows),
    )


def _breaks(data: LadderData) -> Figure | None:
    held = [r for r in data.rungs if r.breaks and r.breaks["rate"] is not None]
    if not held:
        return None
    groups, rows = [], []
    for rung in held:
        b = {name: rung.breaks[name] for name in ("rate", "low", "high", "n")} if rung.breaks else {}
        rate, low, high = (100 * b[name] for name in ("rate", "low", "high"))
        bounds = f"{number(low, 0)} to {number(high, 0)}"
        text = f"{number(rate, 0)} %"
        groups.append(
            svg.Group(
                rung.title, (svg.Mark(series(rung.mode), rate, low, high, text, f"{rung.title}: {text} ({bounds})"),)
            )
        )
        rows.append((rung.title, text, bounds, str(b["n"])))
    title = "Breaks of character"
    return Figure(
        "fig-breaks",
        title,
        "Share of the judged answers that fall out of the part by rule (a machine speaking, an assistant's manner, the "
        "character as a third person), with Wilson's 95 % interval.",
        svg.dot_plot(
            "fig-breaks", title, groups, ticks=(0.0, 20.0, 40.0, 60.0, 80.0, 100.0), axis="percent of answers"
        ),
        ("served as", "rate", "interval, %", "answers"),
        tuple(rows),
    )


def _point(rung: Rung, x: float, y: float, low: float | None, high: float | None, at: str) -> Point:
    return Point(series(rung.mode), x, y, low, high, rung.short, f"{rung.title}: {number(y)} {at}")


def _rates(data: LadderData) -> list[Figure | None]:
    """The sweep over learning rates: as measured at the rate in force, and as reported at the rate told."""
    measured = [(r, float((r.measured or {}).get("learning_rate") or 0)) for r in data.measured]
    measured = [(r, rate) for r, rate in measured if rate > 0]
    told = [
        (r, data.reported_rates[r.reported["run"]], float(r.reported["raw"]))
        for r in data.rungs
        if r.reported and r.reported["raw"] is not None and r.reported["run"] in data.reported_rates
    ]
    made: list[Figure | None] = []
    if measured:
        title = "Learning-rate sweep, measured here"
        points = [
            _point(r, rate, m["overall"], m["low"], m["high"], f"at {rate:g}")
            for r, rate in measured
            if (m := r.measured or {})
        ]
        made.append(
            Figure(
                "fig-rates",
                title,
                f"Score {_judged(data)} by the learning rate that the training used; runs differ in more than their rate.",
                scatter("fig-rates", title, points, x="learning rate (logarithmic)", y="score", up=SCALE, log_x=True),
                ("served as", "learning rate", "declared", "score"),
                tuple(
                    (
                        r.title,
                        f"{rate:g}",
                        f"{r.row['declared_learning_rate']:g}",
                        number((r.measured or {})["overall"]),
                    )
                    for r, rate in measured
                ),
            )
        )
    if told:
        title = "Learning-rate sweep, reported elsewhere"
        points = [Point(TOLD, rate, raw, None, None, r.short, f"{r.title}: {raw} at {rate:g}") for r, rate, raw in told]
        made.append(
            Figure(
                "fig-rates-told",
                title,
                "Raw scores as reported, by the reported learning rate. Not measured here.",
                scatter(
                    "fig-rates-told", title, points, x="learning rate (logarithmic)", y="reported", up=SCALE, log_x=True
                ),
                ("run", "reported learning rate", "reported raw"),
                tuple((r.title, f"{rate:g}", number(raw)) for r, rate, raw in told),
            )
        )
    return made


def _return(data: LadderData) -> Figure | None:
    """Points gained by minutes of training: what a training returns."""
    held = [
        r for r in data.measured
        if (r.measured or {})["against_base"] is not None and (r.measured or {}).get("training_seconds")
    ]  # fmt: skip
    if not held:
        return None
    points, rows = [], []
    for rung in held:
        m, gap = rung.measured or {}, _gap(rung.measured or {})
        minutes = m["training_seconds"] / 60
        points.append(_point(rung, minutes, gap["difference"], gap["low"], gap["high"], f"for {minutes:.1f} min"))
        rate = NONE if minutes < 0.05 else number(gap["difference"] / minutes, sign=True)
        rows.append((rung.title, f"{minutes:.1f}", stated(gap), rate))
    title = "What training returns"
    return Figure(
        "fig-return",
        title,
        f"Points gained over the untuned base ({_judged(data)}) against minutes of training on this machine.",
        scatter("fig-return", title, points, x="minutes of training", y="points over the base", zero=True),
        ("served as", "minutes", "difference", "points a minute"),
        tuple(rows),
    )


def _pairs(data: LadderData) -> Figure | None:
    held = [(r, int((r.measured or {}).get("pairs") or 0)) for r in data.measured]
    held = [(r, pairs) for r, pairs in held if pairs > 0]
    if len({pairs for _, pairs in held}) < 2:
        return None
    points = [
        _point(r, float(pairs), m["overall"], m["low"], m["high"], f"from {pairs} pairs")
        for r, pairs in held
        if (m := r.measured or {})
    ]
    title = "Scores by size of the data"
    return Figure(
        "fig-pairs",
        title,
        f"Score {_judged(data)} by the number of rows trained on; methods and bases differ between runs.",
        scatter("fig-pairs", title, points, x="rows trained on", y="score", up=SCALE),
        ("served as", "method", "rows", "score"),
        tuple((r.title, r.row["method"], str(n), number((r.measured or {})["overall"])) for r, n in held),
    )


def _held_out(data: LadderData) -> Figure | None:
    held = [(r, (r.measured or {}).get("nats_per_token")) for r in data.rungs if r.measured]
    known = [(r, float(nats)) for r, nats in held if nats is not None]
    if not known:
        return None
    groups = [
        svg.Group(r.title, (svg.Mark(series(r.mode), nats, None, None, number(nats, 3), f"{r.title}: {nats:.3f}"),))
        for r, nats in known
    ]
    title = "Loss on held-out text"
    return Figure(
        "fig-nats",
        title,
        "Nats per token on the character's own text that no pair was made from; lower is nearer. No judge has a part in it.",
        svg.bar_plot("fig-nats", title, groups, axis="nats per token, from 0"),
        ("served as", "nats per token"),
        tuple((r.title, number(nats, 4)) for r, nats in known),
    )
