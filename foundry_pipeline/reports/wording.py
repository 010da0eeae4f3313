"""What was measured, in sentences written from the numbers, and how numbers are written.

    findings(data)[1]   → "Served as adapter on base, the trained model scores 5.02 (95 % interval 4.61 to 5.40); its untuned base …"

No sentence claims more than the verdict on its difference (`statistics/verdict.py`): better, worse, or no claim.
"""

from __future__ import annotations

from typing import Any

from foundry_pipeline.reports.contrasts import component_differences
from foundry_pipeline.reports.data import BASE_MODE, ReportData, label, mode_title
from foundry_pipeline.statistics.stated import MINUS, NONE, measured, number, span, stated
from foundry_pipeline.statistics.verdict import BETTER, WORSE

__all__ = ["MINUS", "NONE", "number", "span"]  # how figures are written: one import for a page


def count(value: float | int | None) -> str:
    """A whole number with thousands apart; a dash where there is none."""
    return NONE if value is None else f"{round(value):,}"


def percent(share: float, digits: int = 1, *, sign: bool = False) -> str:
    return f"{number(share * 100, digits, sign=sign)}\N{NO-BREAK SPACE}%"


def duration(seconds: float | None) -> str:
    """`41 s`, `5 min 12 s`, `2 h 05 min`."""
    if seconds is None:
        return NONE
    if seconds < 0.1:
        return "under 0.1 s"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def many(n: int, one: str, more: str = "") -> str:
    return f"{count(n)} {one if n == 1 else more or one + 's'}"


_SHOWN = {BETTER: "training raised the score", WORSE: "training lowered the score"}
_MOVED = {BETTER: "raised", WORSE: "lowered"}
_NO_CLAIM = "neither that it is better than its base nor that it is worse may be said"


def held_out_change(data: ReportData, mode: str) -> tuple[float, float, float] | None:
    """Nats per token of the base, of a mode, and the share by which they fell (negative: rose); None if unmeasured."""
    before = data.summary["modes"].get(BASE_MODE, {}).get("nats_per_token")
    after = data.summary["modes"][mode].get("nats_per_token")
    if before is None or after is None or before <= 0:
        return None
    return before, after, (before - after) / before


def findings(data: ReportData) -> list[str]:
    """The paragraph at the head of a report, a sentence at a time."""
    summary, modes = data.summary, data.summary["modes"]
    said = [
        f"{many(summary['prompts'], 'question')} in "
        f"{many(len({c for m in modes.values() for c in m['categories']}), 'category', 'categories')} were put to "
        f"{many(len(modes), 'serving mode')}, and the judge {data.judge} scored every answer from 0 to 10."
    ]
    if data.tuned:
        said += _scores(data, data.tuned[0])
        said += _components(data, data.tuned[0])
        said += _others(data, data.tuned[1:])
        said += _held_out(data, data.tuned[0])
        said += _failures(data, data.tuned[0])
    said += _controls(data)
    return said


def _scored(overall: dict[str, Any], confidence: float) -> str:
    bounds = span(overall["low"], overall["high"])
    return number(overall["mean"]) + (f" ({percent(confidence, 0)} interval {bounds})" if bounds else "")


def _scores(data: ReportData, mode: str) -> list[str]:
    modes, paired = data.summary["modes"], data.summary["paired"].get(mode)
    if modes[mode]["overall"]["mean"] is None:
        return [f"Served as {mode_title(mode)}, no answer could be scored."]
    first = f"Served as {mode_title(mode)}, the trained model scores {_scored(modes[mode]['overall'], data.confidence)}"
    if BASE_MODE not in modes or paired is None or paired["difference"] is None:
        return [f"{first}."]
    bounds = span(modes[BASE_MODE]["overall"]["low"], modes[BASE_MODE]["overall"]["high"])
    base = number(modes[BASE_MODE]["overall"]["mean"]) + (f" ({bounds})" if bounds else "")
    shown = _SHOWN.get(paired["verdict"], _NO_CLAIM)
    return [
        f"{first}, its untuned base {base}.",
        f"Question by question that is a difference of {measured(paired)}; the verdict is “{paired['verdict']}”: {shown}.",
    ]


def _components(data: ReportData, mode: str) -> list[str]:
    """Which parts of the score moved: a gain in voice alone must not pass for one in what is said."""
    if data.summary["paired"].get(mode, {}).get("difference") is None:
        return []
    groups: dict[str, list[str]] = {}
    for name, found in component_differences(data, mode).items():
        verb = _MOVED.get(found.verdict, "allows no claim of")
        groups.setdefault(verb, []).append(f"{name} ({number(found.difference.mean, sign=True)})")
    told = [f"{verb} {listed(groups[verb])}" for verb in (*_MOVED.values(), "allows no claim of") if verb in groups]
    return [f"By component, training {'; it '.join(told)}."] if told else []


def _others(data: ReportData, modes: list[str]) -> list[str]:
    told = []
    for mode in modes:
        paired = data.summary["paired"].get(mode)
        if paired is not None and paired["difference"] is not None:
            told.append(f"{mode_title(mode)} {stated(paired)}")
    return [f"Served otherwise: {'; '.join(told)}."] if told else []


def _held_out(data: ReportData, mode: str) -> list[str]:
    change = held_out_change(data, mode)
    if change is None:
        return []
    before, after, fell = change
    tokens = data.summary["modes"][mode]["heldout_tokens"]
    source = (
        f"On text kept out of every pair ({listed(list(data.held_out))}; " if data.held_out else "On held-out text ("
    )
    where = f"{source}{count(tokens)} tokens) the loss"
    if fell == 0:
        return [f"{where} stayed at {number(after, 3)} nats per token."]
    moved = "fell" if fell > 0 else "rose"
    return [f"{where} {moved} from {number(before, 3)} to {number(after, 3)} nats per token, by {percent(abs(fell))}."]


def _failures(data: ReportData, mode: str) -> list[str]:
    modes = data.summary["modes"]
    asked = data.summary["prompts"]
    here = modes[mode]["critical_failures"]
    if BASE_MODE not in modes:
        return [f"{here} of {asked} answers had a critical failure."]
    return [
        f"Answers with a critical failure: {modes[BASE_MODE]['critical_failures']} of {asked} untuned, {here} of {asked} trained."
    ]


def _controls(data: ReportData) -> list[str]:
    controls = data.summary["controls"]
    if not controls:
        return [
            "No control answers are declared for this character, so nothing here shows what the judge can tell apart."
        ]
    failed = [f"{comparison(key)} ({c['component']})" for key, c in controls.items() if not c["passed"]]
    if not failed:
        return [
            f"The judge put planted answers of known order right in all {many(len(controls), 'control comparison')}."
        ]
    return [
        f"The judge passed {len(controls) - len(failed)} of {many(len(controls), 'control comparison')}; it failed on "
        f"{listed(failed)}, and its scores are to be read with that in mind."
    ]


_CONTROLS = {
    "fits": "a fitting passage",
    "other": "a passage on another question",
    "rival": "a passage by somebody else",
    "archaic_nonsense": "archaic nonsense",
    "modern_assistant": "a modern assistant's answer",
    "as_an_ai": "an answer “as an AI”",
    "loop": "a loop",
}


def comparison(key: str) -> str:
    """`fits_over_other_position` as words; an unknown name with its underscores opened."""
    better, _, rest = key.partition("_over_")
    worse = next((w for w in sorted(_CONTROLS, key=len, reverse=True) if rest == w or rest.startswith(f"{w}_")), rest)
    return f"{_CONTROLS.get(better, label(better))} above {_CONTROLS.get(worse, label(worse))}"
