"""How often a model falls out of its part: rates of breaks per serving mode, topic and named prompt.

    rates = probe_rates(probe_set, answers, character)      # answers: mode, probe_id, sample, answer
    → mode     topic     probe_id  n   breaks  rate  low   high  empty  kinds
      merged   identity  drives    39  38      0.97  0.87  1.00  0      {"ai_self_reference": 38}
      merged   identity            78  40      0.51  0.14  0.87  …

A break is what `breaks.character_breaks` finds by rule. An answer without words is neither a break nor its absence: it is
counted as `empty` and left out of n. The interval of a single prompt is Wilson's over its samples; that of a topic, and of
all probes together, takes into account that samples of one prompt resemble each other more than two prompts do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from foundry_pipeline.breaks import character_breaks
from foundry_pipeline.declarations.probes import TOPICS, ProbeSet
from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.statistics.proportions import Proportion, clustered, difference, fisher
from foundry_pipeline.statistics.significance import holm
from foundry_pipeline.statistics.verdict import ALPHA, BETTER, WORSE
from foundry_pipeline.textstats import words

ANSWERS: dict[str, Any] = {"mode": pl.String, "probe_id": pl.String, "sample": pl.Int64, "answer": pl.String}
LEAST_WORDS = 3  # fewer say nothing in or out of a part, as in `integrity.LEAST_WORDS`
ALL = "all"


def probe_rates(
    probe_set: ProbeSet, answers: pl.DataFrame, character: Character, *, confidence: float = 0.95
) -> list[dict[str, Any]]:
    """Rows as above, by mode in the order they come, then all probes, topics, and the probes of each.

    Raises FoundryError for answers to a probe that is not declared, a sample that comes twice, and a mode that was not
    asked every probe: what was not asked is not a rate of zero.
    """
    _refuse(probe_set, answers)
    topic_of = {probe.id: probe.topic for probe in probe_set.probes}
    found: dict[tuple[str, str], list[list[str] | None]] = {}
    for row in answers.sort("mode", "probe_id", "sample").iter_rows(named=True):
        said = row["answer"] or ""
        kinds = [kind for kind, _ in character_breaks(character, said)] if len(words(said)) >= LEAST_WORDS else None
        found.setdefault((row["mode"], row["probe_id"]), []).append(kinds)
    rows = []
    for mode in dict.fromkeys(answers["mode"].to_list()):
        rows.append(_row(mode, ALL, "", [found[mode, p] for p in topic_of], confidence))
        for topic in (t for t in TOPICS if t in topic_of.values()):
            of_topic = [p for p, its in topic_of.items() if its == topic]
            rows.append(_row(mode, topic, "", [found[mode, p] for p in of_topic], confidence))
            rows.extend(_row(mode, topic, p, [found[mode, p]], confidence) for p in of_topic)
    return rows


def _row(
    mode: str, topic: str, probe_id: str, samples: Sequence[list[list[str] | None]], confidence: float
) -> dict[str, Any]:
    read = [[kinds for kinds in of_probe if kinds is not None] for of_probe in samples]
    rate: Proportion = clustered([(sum(map(bool, r)), len(r)) for r in read], confidence)
    kinds = Counter(kind for of_probe in read for said in of_probe for kind in set(said))
    return {
        "mode": mode,
        "topic": topic,
        "probe_id": probe_id,
        "n": rate.n,
        "breaks": int(rate.count),
        "rate": rate.rate,
        "low": rate.low,
        "high": rate.high,
        "empty": sum(map(len, samples)) - rate.n,
        "kinds": dict(sorted(kinds.items())),
    }


def mode_differences(rates: Sequence[dict[str, Any]], mode: str, against: str) -> list[dict[str, Any]]:
    """Rate of `mode` minus that of `against`, for every named prompt, with Newcombe's interval and a verdict.

    "better" is fewer breaks. A claim takes Fisher's exact test, corrected for the number of prompts (Holm), and an
    interval that leaves zero out. Raises FoundryError for a mode that there are no rates of.
    """
    by_mode = {m: {r["probe_id"]: r for r in rates if r["mode"] == m and r["probe_id"]} for m in (mode, against)}
    for name, of_mode in by_mode.items():
        if not of_mode:
            modes = ", ".join(dict.fromkeys(r["mode"] for r in rates))
            raise FoundryError(f"no answers of the mode `{name}`", where="the probes' answers", mend=f"one of: {modes}")
    rows = []
    for probe_id, one in by_mode[mode].items():
        other = by_mode[against][probe_id]
        gap = difference((one["breaks"], one["n"]), (other["breaks"], other["n"]))
        p = fisher((one["breaks"], one["n"]), (other["breaks"], other["n"]))
        asked = f"{one['n']}+{other['n']}"
        rows.append(
            {"probe_id": probe_id, "topic": one["topic"], "mode": mode, "against": against, "n": asked, **gap, "p": p}
        )
    corrected = holm({row["probe_id"]: row["p"] for row in rows})
    return [row | {"p_corrected": corrected[row["probe_id"]], "verdict": _verdict(row, corrected)} for row in rows]


def _verdict(row: dict[str, Any], corrected: Mapping[str, float | None]) -> str:
    p, low, high = corrected[row["probe_id"]], row["low"], row["high"]
    if p is not None and p <= ALPHA and low is not None and high is not None:
        if high < 0:
            return BETTER
        if low > 0:
            return WORSE
    return f"no claim at n={row['n']}"


def _refuse(probe_set: ProbeSet, answers: pl.DataFrame) -> None:
    where, mend = "the probes' answers", "ask every probe of `sources/<character>/probes.yaml` in every mode"
    if missing := [c for c in ANSWERS if c not in answers.columns]:
        raise FoundryError(f"the answers have no column {', '.join(missing)}", where=where, mend=mend)
    if answers.is_empty():
        raise FoundryError("there is no answer", where=where, mend=mend)
    known = {probe.id for probe in probe_set.probes}
    asked = set(answers["probe_id"].to_list())
    if strange := sorted(str(p) for p in asked - known):
        raise FoundryError(f"no probe is named {', '.join(strange[:3])}", where=where, mend=mend)
    twice = answers.filter(answers.select("mode", "probe_id", "sample").is_duplicated())
    if not twice.is_empty():
        mode, probe_id, sample = twice.select("mode", "probe_id", "sample").row(0)
        raise FoundryError(f"sample {sample} of {probe_id} in the mode {mode} comes twice", where=where, mend=mend)
    for mode, of_mode in answers.group_by("mode", maintain_order=True):
        if lacking := sorted(known - set(of_mode["probe_id"].to_list())):
            raise FoundryError(f"the mode {mode[0]} was not asked {', '.join(lacking)}", where=where, mend=mend)
