"""One way to write a difference of two means, wherever one is shown: terminal, report, card, Dagster.

    stated({"difference": 3.33, "low": 2.98, "high": 3.66, "n": 36, "verdict": "better"})
    → "+3.33 (+2.98 to +3.66), better"
    stated({"difference": 0.02, "low": -0.52, "high": 0.71, "n": 36, "verdict": "no claim at n=36"})
    → "+0.02 (−0.52 to +0.71), no claim at n=36"

What may be said stands in `verdict` and nowhere else (`statistics/verdict.py`): an interval that leaves zero out is shown
as such and is no claim by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from foundry_pipeline.statistics.verdict import BETTER, WORSE

MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"
Tone = Literal["good", "bad", "plain"]


def number(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """A figure with a true minus; a dash where there is none."""
    if value is None:
        return NONE
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def span(low: float | None, high: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """`4.61 to 5.40`; empty without bounds. A bound beside 0 gets the digits that show on which side of it it lies."""
    if low is None or high is None:
        return ""
    while digits < 6 and any(bound != 0 and round(bound, digits) == 0 for bound in (low, high)):
        digits += 1
    return f"{number(low, digits, sign=sign)} to {number(high, digits, sign=sign)}"


def measured(found: Mapping[str, Any]) -> str:
    """The difference with its interval, without what may be said of it; a dash where nothing could be compared."""
    if found["difference"] is None:
        return NONE
    bounds = span(found["low"], found["high"], sign=True)
    return number(found["difference"], sign=True) + (f" ({bounds})" if bounds else "")


def stated(found: Mapping[str, Any]) -> str:
    """The difference, its interval and the verdict."""
    return NONE if found["difference"] is None else f"{measured(found)}, {found['verdict']}"


def tone(found: Mapping[str, Any]) -> Tone:
    """How a difference is coloured: by its verdict."""
    return "good" if found["verdict"] == BETTER else "bad" if found["verdict"] == WORSE else "plain"
