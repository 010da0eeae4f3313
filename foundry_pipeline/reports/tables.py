"""Rows of a report's tables, prepared so that the page only has to lay them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from foundry_pipeline.declarations.common import CATEGORIES
from foundry_pipeline.evaluation.scoring import WEIGHTS
from foundry_pipeline.reports.data import BASE_MODE, DataSet, ReportData, Training, label
from foundry_pipeline.reports.wording import MINUS, NONE, count, held_out_change, number, percent, span
from foundry_pipeline.statistics.stated import tone


@dataclass(frozen=True)
class Tile:
    """One figure at the head of the page. `tone` is good, bad or plain."""

    value: str
    what: str
    detail: str
    tone: str = "plain"


@dataclass(frozen=True)
class Answer:
    """One serving mode's answer to a sample question."""

    mode: str
    text: str
    overall: float | None
    components: tuple[tuple[str, float | None], ...]
    critical: tuple[str, ...]
    overlap: int | None
    cut: bool
    justification: str


@dataclass(frozen=True)
class Sample:
    """A question and what every mode said to it; `why` says by which rule it was chosen."""

    prompt_id: str
    question: str
    category: str
    difficulty: str
    why: str
    answers: tuple[Answer, ...]


def categories(data: ReportData) -> list[tuple[str, int]]:
    """The suite's categories that any mode was scored in, with the number of questions."""
    found: dict[str, int] = {}
    for m in data.summary["modes"].values():
        for name, values in m["categories"].items():
            found[name] = max(found.get(name, 0), int(values["n"]))
    known = [c for c in CATEGORIES if c in found]
    return [(name, found[name]) for name in [*known, *sorted(set(found) - set(known))]]


def tiles(data: ReportData) -> list[Tile]:
    """The few numbers that answer whether training did anything; those that were not measured are absent."""
    out = []
    modes = data.summary["modes"]
    mode = data.tuned[0] if data.tuned else None
    if mode is not None:
        paired = data.summary["paired"].get(mode)
        if paired is not None and paired["difference"] is not None:
            bounds = span(paired["low"], paired["high"], sign=True)
            out.append(
                Tile(
                    number(paired["difference"], sign=True),
                    "difference from the untuned base",
                    f"{paired['verdict']}; {percent(data.confidence, 0)} interval {bounds}"
                    if bounds
                    else paired["verdict"],
                    tone(paired),
                )
            )
        base = modes.get(BASE_MODE, {}).get("overall", {}).get("mean")
        trained = modes[mode]["overall"]["mean"]
        if base is not None and trained is not None:
            out.append(
                Tile(
                    f"{number(base)} → {number(trained)}", "overall score, base → trained", f"0 to 10, by {data.judge}"
                )
            )
        change = held_out_change(data, mode)
        if change is not None:
            before, after, fell = change
            moved = "good" if fell > 0 else "bad" if fell < 0 else "plain"
            out.append(
                Tile(
                    percent(-fell, 1, sign=True),
                    "loss on held-out text",
                    f"{number(before)} → {number(after)} nats per token",
                    moved,
                )
            )
    controls = data.summary["controls"]
    if controls:
        passed = sum(bool(c["passed"]) for c in controls.values())
        out.append(
            Tile(
                f"{passed} of {len(controls)}",
                "control comparisons passed",
                "answers whose right order is known",
                "good" if passed == len(controls) else "bad",
            )
        )
    return out


def samples(data: ReportData) -> list[Sample]:
    """Three questions chosen by rule: the trained mode's greatest gain on the base, its median, its greatest loss.

    Without two modes to compare, the best, median and worst scored answers of the first mode. Fewer questions, fewer
    samples: no question is shown twice.
    """
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for row in data.scores:
        rows.setdefault(row["prompt_id"], {}).setdefault(row["mode"], row)
    compared = bool(data.tuned) and BASE_MODE in data.modes
    first = data.tuned[0] if data.tuned else data.modes[0]
    ranked = []
    for prompt_id, by_mode in rows.items():
        value = by_mode.get(first, {}).get("overall")
        against = by_mode.get(BASE_MODE, {}).get("overall") if compared else 0.0
        if value is not None and against is not None:
            ranked.append((value - against, prompt_id))
    ranked.sort()
    if not ranked:
        return []
    places = dict.fromkeys((len(ranked) - 1, len(ranked) // 2, 0))
    return [
        _sample(data, *ranked[at], place, compared, rows)
        for at, place in zip(places, _places(len(places)), strict=True)
    ]


def _places(found: int) -> tuple[str, ...]:
    return ("first", "median", "last") if found == 3 else ("first", "last")[:found]


def _why(place: str, value: float, compared: bool) -> str:
    if not compared:
        return {"first": "best", "median": "median", "last": "worst"}[place] + f" answer: {number(value)}"
    if place == "median":
        return f"median difference: {number(value, sign=True)}"
    if value == 0:
        return "no difference"
    named = {
        "first": "largest gain" if value > 0 else "smallest loss",
        "last": "smallest gain" if value > 0 else "largest loss",
    }
    return f"{named[place]}: {number(value, sign=True)}"


def _sample(
    data: ReportData,
    value: float,
    prompt_id: str,
    place: str,
    compared: bool,
    rows: dict[str, dict[str, dict[str, Any]]],
) -> Sample:
    by_mode = rows[prompt_id]
    any_row = next(iter(by_mode.values()))
    return Sample(
        prompt_id,
        data.prompts.get(prompt_id, prompt_id),
        label(any_row["category"]),
        any_row["difficulty"],
        _why(place, value, compared),
        tuple(
            Answer(
                mode,
                by_mode[mode]["answer"],
                by_mode[mode]["overall"],
                tuple((name, by_mode[mode][name]) for name in WEIGHTS),
                tuple(label(c) for c in by_mode[mode]["critical_failures"]),
                by_mode[mode]["longest_overlap_words"],
                by_mode[mode]["finish_reason"] == "length",
                by_mode[mode]["justification"] or "",
            )
            for mode in data.modes
            if mode in by_mode
        ),
    )


def origins(dataset: DataSet) -> list[str]:
    return sorted({origin for row in dataset.counts.values() for origin in row})


def plain(value: Any) -> str:
    """A declared value as a reader writes it: 2e-05 as 0.00002, true as yes."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        text = f"{value:.12f}".rstrip("0").rstrip(".") if abs(value) >= 1e-9 or value == 0 else f"{value:g}"
        return text.replace("-", MINUS)
    return f"{value:,}" if isinstance(value, int) else str(value)


def hyperparameters(training: Training) -> list[tuple[str, str, str, bool]]:
    """(name, declared, effective, whether the profile changed it), in the order of the declaration."""
    names = [*training.declared, *(n for n in training.effective if n not in training.declared)]
    rows = []
    for name in names:
        said, used = training.declared.get(name), training.effective.get(name)
        rows.append((label(name), plain(said), plain(used), name in training.declared and said != used))
    return rows


def bound(limits: dict[str, Any]) -> str:
    """The bound of a data check in a few words."""
    low, high = limits.get("min_value"), limits.get("max_value")
    if "value_set" in limits:
        values = limits["value_set"]
        return "true in every row" if values == [True] else f"one of {len(values)} names"
    if low is not None and high is not None:
        return f"{plain(low)} to {plain(high)}"
    if low is not None:
        return f"{'above' if limits.get('strict_min') else 'at least'} {plain(low)}"
    if high is not None:
        return f"{'below' if limits.get('strict_max') else 'at most'} {plain(high)}"
    return "no two alike" if not limits else ", ".join(f"{label(k)} {plain(v)}" for k, v in limits.items())


def observed(result: dict[str, Any]) -> str:
    """What a data check saw: how many rows failed it, or the value it measured."""
    if result.get("rows_failed") is not None:
        failed = result["rows_failed"]
        return "no row fails" if not failed else f"{count(failed)} {'row fails' if failed == 1 else 'rows fail'}"
    value = result.get("observed")
    return number(value, 3) if isinstance(value, float) else plain(value)


def training_facts(training: Training) -> list[tuple[str, str]]:
    """The trainer's own account, in words; what it did not say is absent."""
    facts = training.facts
    seconds_per_step = facts.get("seconds_per_step")
    steps = facts.get("steps")
    told = [
        ("optimizer steps", count(steps) if steps is not None else None),
        ("seconds a step", number(seconds_per_step, 2) if seconds_per_step is not None else None),
        ("seconds a pair", number(facts["seconds_per_pair"], 2) if "seconds_per_pair" in facts else None),
        ("training, seconds", number(facts["seconds"], 1) if "seconds" in facts else None),
        ("whole stage, seconds", number(facts["build_seconds"], 1) if "build_seconds" in facts else None),
        ("pairs read", count(facts["pairs"]) if "pairs" in facts else None),
        ("pairs shown in an epoch", count(facts["rows_per_epoch"]) if "rows_per_epoch" in facts else None),
        ("pairs held out for validation", count(facts["validation_rows"]) if "validation_rows" in facts else None),
        ("pairs left out as too long", count(facts["dropped_long"]) if "dropped_long" in facts else None),
        ("tokens", count(facts["tokens"]) if "tokens" in facts else None),
        ("trained parameters", count(facts["trainable_parameters"]) if "trainable_parameters" in facts else None),
        ("final loss", number(facts["final_loss"], 4) if "final_loss" in facts else None),
        ("validation loss", number(facts["validation_loss"], 4) if "validation_loss" in facts else None),
        ("KL from the base, nats a token", number(facts["kl_to_base"], 3) if "kl_to_base" in facts else None),
        ("warnings of its guards", count(facts["guard_warnings"]) if "guard_warnings" in facts else None),
        ("roll-backs", count(facts["roll_backs"]) if facts.get("roll_backs") else None),
        ("seed", str(training.seed) if training.seed is not None else None),
        ("threads", str(facts["threads"]) if "threads" in facts else None),
        ("processes", str(facts["world_size"]) if "world_size" in facts else None),
        ("device", str(facts["device"]) if "device" in facts else None),
        ("peak memory", f"{facts['peak_memory_bytes'] / 2**30:.2f} GiB" if facts.get("peak_memory_bytes") else None),
    ]
    return [(name, value) for name, value in told if value is not None]


def web_link(url: str) -> str:
    """The address if it is a web address, else nothing: a link must not carry anything that runs."""
    parts = urlsplit(url)
    return url if parts.scheme in ("http", "https") and parts.netloc else ""
