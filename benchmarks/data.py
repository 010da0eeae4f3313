"""How fast pairs are cleaned, filtered and judged, beside pandas + datasketch + Great Expectations: same rules, same pairs.

    python -m benchmarks.data                                # 100,000 beside the peer, then 1,000,000 alone
    python -m benchmarks.data --rows 2000 --many 20000       # a small run

Each side runs in a process of its own, one after the other, on the same Parquet file; its clock starts when libraries
and declarations are loaded, and its memory is the greatest resident set of its process. The pairs are made, not real:
`benchmarks/made_pairs.py` says how. The peer (`benchmarks/data_peer.py`) is written with `.apply` and `.str`, as one
writes it in pandas, counts every text's words once, and ends in a suite on the wide frame.
Writes `benchmarks/results/data-<profile>.md`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.chain import machine
from benchmarks.made_pairs import HELD_OUT, PARTS, write_pairs
from foundry_pipeline.declarations import Declarations, load
from foundry_pipeline.declarations.assets import Dataset, DatasetPart, Filters
from foundry_pipeline.pairs.candidates import pair_id
from foundry_pipeline.settings import load_settings

CHARACTER = "madison"
FILTERS = Filters(min_chosen_words=25, max_chosen_words=130, max_rejected_words=200)


def declared() -> Declarations:
    settings = load_settings()
    return load(settings.root, settings.profile)


def dataset(rows: int) -> Dataset:
    """A dataset that asks for every pair there is."""
    part = DatasetPart(origin="base", pairs=rows)
    return Dataset(dataset="made_dataset", character=CHARACTER, description="made pairs", parts=(part,))


def named(pairs: pl.DataFrame) -> pl.DataFrame:
    """`pairs` with the ids that their contents give them."""
    texts = pairs.select("prompt", "chosen", "rejected", "origin").iter_rows()
    return pairs.with_columns(pl.Series("pair_id", [pair_id(*t) for t in texts], dtype=pl.String))


class Clock:
    """Seconds of each step, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        out = work()
        self.seconds[name] = time.perf_counter() - started
        return out


def run_here(path: Path) -> tuple[Clock, pl.Series, Any]:
    """Foundry's own way: (clock, first rule of each row or null, verdict of the gate)."""
    import great_expectations  # noqa: F401  (loaded before the clock starts, as in the peer)

    from foundry_pipeline.datasets.expectations import check_dataset
    from foundry_pipeline.pairs.conversations import SIDES
    from foundry_pipeline.pairs.filters import Unknown, judge_pairs
    from foundry_pipeline.pairs.pair_files import normal_form

    d = declared()
    files = d.characters[CHARACTER]
    suite = tuple(p.text for p in files.suite.prompts)
    clock = Clock()
    pairs = clock.step("read", lambda: pl.read_parquet(path))
    pairs = clock.step("clean", lambda: pairs.with_columns(normal_form(pairs[s]) for s in SIDES))
    judged = clock.step(
        "filter and near-duplicates",
        lambda: judge_pairs(
            pairs, FILTERS, character=files.character, unknown=Unknown(suite, HELD_OUT), names=pairs["prompt_id"]
        ),
    )
    kept = clock.step("ids", lambda: named(pairs.hstack(judged.scores()).filter(judged.kept)))
    verdict = clock.step(
        "gate",
        lambda: check_dataset(
            kept,
            dataset=dataset(kept.height),
            profile=d.profile.model_copy(update={"filters": FILTERS, "size_factor": 1.0}),
            character=files.character,
            suite_texts=suite,
            held_out_texts=HELD_OUT,
            declared={},
        ),
    )
    return clock, pl.Series("rule", judged.first_rules(), dtype=pl.String), verdict


def run_peer(path: Path) -> tuple[Clock, pl.Series, Any]:
    """The same in pandas."""
    from benchmarks import data_peer

    return data_peer.run(path, declared().characters[CHARACTER], FILTERS, Clock())


def child(side: str, path: Path, out: Path) -> None:
    clock, rules, verdict = {"foundry": run_here, "pandas": run_peer}[side](path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rules.to_frame("rule").write_parquet(out)
    passed = all(r.passed for r in verdict.results if r.severity == "error") if side == "foundry" else bool(verdict)
    print(json.dumps({"seconds": clock.seconds, "peak_gib": peak, "gate_passed": passed}))


def measured(side: str, path: Path, out: Path) -> dict[str, Any]:
    """Run one side in its own process; raises CalledProcessError when it fails."""
    command = [sys.executable, "-m", "benchmarks.data", "--child", side, str(path), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "total": sum(found["seconds"].values())}


def agreement(ours: Path, peers: Path) -> list[str]:
    """Whether both sides kept the same pairs, and where they did not."""
    both = pl.DataFrame({"ours": pl.read_parquet(ours)["rule"], "peer": pl.read_parquet(peers)["rule"]})
    apart = both.filter(pl.col("ours").is_null() != pl.col("peer").is_null())
    other = both.filter(
        (pl.col("ours") != pl.col("peer")) & pl.col("ours").is_not_null() & pl.col("peer").is_not_null()
    )
    lines = [f"Kept by both: {both.filter(pl.col('ours').is_null() & pl.col('peer').is_null()).height:,}."]
    if apart.is_empty() and other.is_empty():
        return [*lines, "Every pair has the same verdict on both sides, and every dropped one the same reason."]
    counts = apart.group_by("ours", "peer").len().sort("len", descending=True).iter_rows()
    named = "; ".join(f"{n:,}: `{o or 'kept'}` here, `{p or 'kept'}` there" for o, p, n in counts)
    lines.append(f"Verdicts that differ: {apart.height:,} ({named}); other first reasons: {other.height:,}.")
    if set(apart["ours"].drop_nulls()) | set(apart["peer"].drop_nulls()) <= {"near_duplicate"}:
        lines.append(
            "They differ only in near-duplicates: datasketch's bands are set for a balance of errors and miss some pairs "
            "just above the threshold; what a missed one was compared with differs after it."
        )
    return lines


def table(ours: dict[str, Any], peer: dict[str, Any], rows: int) -> list[str]:
    lines = ["| step | Foundry, s | pandas + datasketch + GX, s |", "|---|---:|---:|"]
    for step in dict.fromkeys([*ours["seconds"], *peer["seconds"]]):
        cells = (f"{s['seconds'][step]:.1f}" if step in s["seconds"] else "–" for s in (ours, peer))
        lines.append(f"| {step} | {' | '.join(cells)} |")
    lines.append(f"| **together** | **{ours['total']:.1f}** | **{peer['total']:.1f}** |")
    lines.append(f"| rows a second | {rows / ours['total']:,.0f} | {rows / peer['total']:,.0f} |")
    lines.append(f"| peak memory, GiB | {ours['peak_gib']:.2f} | {peer['peak_gib']:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--many", type=int, default=1_000_000, help="0: leave the large run out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=3, metavar=("SIDE", "PAIRS", "OUT"))
    asked = parser.parse_args()
    if asked.child:
        child(asked.child[0], Path(asked.child[1]), Path(asked.child[2]))
        return
    settings = load_settings()
    with tempfile.TemporaryDirectory(dir=settings.root) as folder:
        place = Path(folder)
        pairs = place / "pairs.parquet"
        question = max((p.text for p in declared().characters[CHARACTER].suite.prompts), key=len)
        words = write_pairs(pairs, asked.rows, asked.seed, question)
        ours = measured("foundry", pairs, place / "ours.parquet")
        peer = measured("pandas", pairs, place / "peer.parquet")
        lines = [f"# Pairs: clean, filter, near-duplicates, gate, under the profile `{settings.profile}`", ""]
        lines += [f"Machine: {machine()}", "", f"{asked.rows:,} made pairs (seed {asked.seed}): {words}. {PARTS}", ""]
        lines += [*table(ours, peer, asked.rows), ""]
        lines += [f"**{peer['total'] / ours['total']:.1f}× the speed** in {ours['peak_gib']:.2f} GiB.", ""]
        lines += [*agreement(place / "ours.parquet", place / "peer.parquet"), ""]
        if asked.many:
            write_pairs(pairs, asked.many, asked.seed, question)
            many = measured("foundry", pairs, place / "many.parquet")
            lines += [f"## {asked.many:,} pairs", "", "| step | seconds |", "|---|---:|"]
            lines += [f"| {step} | {seconds:.1f} |" for step, seconds in many["seconds"].items()]
            lines += [f"| **together** | **{many['total']:.1f}** |", ""]
            lines += [
                f"{asked.many / asked.rows:.0f}× the rows in {many['total'] / ours['total']:.1f}× the time; "
                f"{asked.many / many['total']:,.0f} rows a second, peak memory {many['peak_gib']:.1f} GiB.",
                "",
            ]
    path = settings.root / "benchmarks" / "results" / f"data-{settings.profile}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
