"""What the seeds of a run do to its score: every combination that is judged, and the spread over trainings.

found = over_seeds(d, chain, "keeper_first")
found["rows"]     each combination × serving mode: partition, seeds, overall with its interval, the hash of the evaluation
found["modes"]    mode → {"n": 3, "unit": "training seeds", "mean": 2.41, "sd": 0.31, "low": 1.64, "high": 3.18}

Two questions of two sizes. The interval of a row is over the suite's prompts, of one training and one drawing. That of a
mode is over its trainings, by Student's t: a training counts once, with the mean of all its drawings and judgings. What
was not trained here (`base`) has but one training; its unit is the sampling seed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.seeds import Variant
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.statistics.effects import CONFIDENCE, Sample
from foundry_pipeline.statistics.seeds import SeedComparison, compare_seeds, mean_interval

UNTRAINED = "base"


def known_seeds(d: Declarations, run: str) -> list[Variant]:
    """The combinations of a declared run, the first one first.

    Raises FoundryError for a run that is not declared, or that declares but one combination.
    """
    if run not in d.declared_runs:
        raise FoundryError(
            f"no run `{run}` is declared",
            where="assets/runs/",
            mend=f"name one of: {', '.join(sorted(d.declared_runs))}",
        )
    found = [v for v in d.variants.values() if v.run == run]
    if not found:
        raise FoundryError(
            f"{run} declares one seed",
            where=f"assets/runs/{run}.yaml",
            mend="add the line `seeds: 10` (or `sampling_seeds: 3` to its evaluation), then `foundry check`",
        )
    return found


def over_seeds(d: Declarations, chain: Chain, run: str) -> dict[str, Any]:
    """Every combination of a run and what they come to; plain data.

    A combination that is not judged for the present declarations stands in `missing` with the command that builds it, and
    counts nowhere.
    """
    rows: list[dict[str, Any]] = []
    missing: list[dict[str, str]] = []
    about: dict[str, str] = {}
    variants = known_seeds(d, run)
    for variant in variants:
        stage = chain.stages[f"{variant.name}_eval"]
        record = chain.resolve(stage.name).record
        if record is None:
            missing.append({"partition": variant.partition, "command": stage.command})
            continue
        payload = chain.store.open(record.content_hash, name=stage.name).payload
        summary = json.loads((payload / "summary.json").read_text(encoding="utf-8"))
        about = {"judge": summary["judge"]["name"], "judge_version": summary["judge"]["version"]}
        about["suite_hash"] = summary["suite_hash"]
        adapter = chain.resolve(f"{variant.name}_adapter").record
        for mode, measured in summary["modes"].items():
            rows.append(
                {
                    "run": variant.name,
                    "partition": variant.partition,
                    "training_seed": None if mode == UNTRAINED else variant.training_seed,
                    "sampling_seed": variant.sampling_seed,
                    "judge_repeat": variant.judge_repeat,
                    "mode": mode,
                    **{name: measured["overall"][name] for name in ("mean", "low", "high")},
                    "unscored": measured["unscored"],
                    "adapter_hash": adapter.content_hash if adapter and mode != UNTRAINED else "",
                    "artifact_hash": record.content_hash,
                }
            )
    return {
        "run": run,
        "combinations": len(variants),
        "confidence": CONFIDENCE,
        **about,
        "rows": rows,
        "modes": {mode: _spread(rows, mode) for mode in dict.fromkeys(r["mode"] for r in rows)},
        "missing": missing,
    }


def _spread(rows: Iterable[Mapping[str, Any]], mode: str) -> dict[str, Any]:
    values = units(rows, mode)
    unit = "sampling seeds" if mode == UNTRAINED else "training seeds"
    out: dict[str, Any] = {"n": len(values), "unit": unit, "mean": None, "sd": None, "low": None, "high": None}
    if len(values) > 1:
        sample = Sample.of(values)
        low, high = mean_interval(sample)
        return {**out, "mean": sample.mean, "sd": sample.sd, "low": low, "high": high}
    return {**out, "mean": values[0]} if values else out


def units(rows: Iterable[Mapping[str, Any]], mode: str) -> list[float]:
    """The mean score of each unit of a mode, in the order of its seeds; a unit with an unscored mean is left out."""
    by: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row["mode"] == mode and row["mean"] is not None:
            by[row["sampling_seed"] if mode == UNTRAINED else row["training_seed"]].append(row["mean"])
    return [sum(values) / len(values) for _, values in sorted(by.items())]


def compare_runs(d: Declarations, chain: Chain, one: str, other: str, mode: str) -> dict[str, Any]:
    """Two runs under several seeds each, in one serving mode: Welch's test over their trainings, and the verdict.

    Raises FoundryError where judge, version or suite differ, or where a side has fewer than two trainings judged.
    """
    a, b = over_seeds(d, chain, one), over_seeds(d, chain, other)
    for name in ("judge", "judge_version", "suite_hash"):
        if a["rows"] and b["rows"] and a[name] != b[name]:
            raise FoundryError(
                f"{one} and {other} differ in {name.replace('_', ' ')} ({a[name]} and {b[name]}): their scores do not stand "
                "in one column",
                where=f"{one}_eval, {other}_eval",
                mend="let both runs name one evaluation, then `foundry check`",
            )
    samples = []
    for found in (a, b):
        values = units(found["rows"], mode)
        if len(values) < 2:
            command = found["missing"][0]["command"] if found["missing"] else f"foundry seeds {found['run']}"
            raise FoundryError(
                f"{found['run']} has {len(values)} judged seeds in the mode `{mode}`, a comparison takes two and more",
                where=f"{found['run']}_eval",
                mend=command,
            )
        samples.append(Sample.of(values))
    compared: SeedComparison = compare_seeds(*samples)
    told = {"difference": compared.difference, "verdict": compared.verdict, "detectable": compared.detectable}
    return {"mode": mode, "a": a, "b": b, **told, "welch": asdict(compared.welch), "effect": _asdict(compared.effect)}


def _asdict(effect: Any) -> dict[str, Any] | None:
    return None if effect is None else asdict(effect)
