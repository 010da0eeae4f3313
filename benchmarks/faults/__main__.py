"""Break the chain on purpose, many times, and say what became of each fault.

    make faults                                              # the declared mix, about 230 faults
    python -m benchmarks.faults --only cache --count 3       # three faults of one kind
    python -m benchmarks.faults --seed 7 --fresh             # another draw; forget what was done before

A world of servers and a small project is built once and kept in `--folder`, together with what each fault came to: a
campaign that was interrupted goes on where it was. Each fault is drawn from (seed, kind, number) alone. After it the chain
is brought to its goal by the commands that the messages name, and compared with the run that nobody disturbed: the same
content hashes, every stored answer kept and none asked for again (the servers count), the ledgers whole, the gate not
passed. Writes `benchmarks/results/faults-<machine>.md`; exit code 1 where anything fell short.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.faults import damage, meetings, processes, surroundings
from benchmarks.faults.judged import Outcome, seed_of
from benchmarks.faults.nursery import Nursery
from benchmarks.faults.table import write_table
from benchmarks.faults.world import World

Fault = Callable[[World, Path, random.Random], tuple[str, Outcome]]


NOT_DONE = "the campaign itself failed"


@dataclass(frozen=True)
class Kind:
    """One kind of fault: how many of it are in the mix, and why it cannot be run here, if it cannot."""

    name: str
    count: int
    fault: Fault | None
    about: str
    lacking: Callable[[Path], str | None] = lambda folder: None


def _mount(folder: Path) -> str | None:
    return None if surroundings.can_mount(folder / "mount") else "no right to mount a file system"


def _faketime(_: Path) -> str | None:
    return None if meetings.faketime() else "libfaketime is not installed (Debian: libfaketime)"


W, S, D = damage.WHOLE, damage.SCORED, damage.DATA
KINDS = (
    Kind("parquet", 20, damage.in_store("payload/**/*.parquet"), "a Parquet file harmed"),
    Kind("parquet of scores", 4, damage.in_store("payload/**/*.parquet", ("_eval", "_responses"), W), "a Parquet file of answers or scores harmed"),
    Kind("safetensors", 4, damage.in_store("payload/**/*.safetensors", ("_adapter", "_merged"), W), "a safetensors file harmed"),
    Kind("gguf", 4, damage.in_store("payload/**/*.gguf", (), W), "a GGUF file harmed"),
    Kind("manifest", 14, damage.in_store("manifest.json"), "a manifest harmed"),
    Kind("index", 16, damage.named(".foundry/index/*.json"), "an index line harmed"),
    Kind("cache", 16, damage.named(".foundry/responses.db", ".foundry/responses.db.jsonl"), "the response cache or its copy harmed"),
    Kind("ledger", 18, damage.named(".foundry/ledger.db", ".foundry/ledger.db.jsonl", where=S), "the score ledger or its copy harmed"),
    Kind("money", 14, damage.named(".foundry/money.db", ".foundry/money.db.jsonl"), "the ledger of money or its copy harmed"),
    Kind("instance", 10, damage.named(".dagster/**/*.db"), "a database of the Dagster instance harmed"),
    Kind("gate", 12, damage.gate, "a verdict failed, turned, gone or harmed"),
    Kind("checkpoint", 2, damage.work, "a checkpoint of an unfinished training harmed"),
    Kind("deleted instance", 3, damage.deleted(".dagster"), "the Dagster instance deleted"),
    Kind("deleted index", 3, damage.deleted(".foundry/index"), "the index deleted"),
    Kind("deleted lines", 3, damage.deleted(".foundry/index/*.json", most=4), "index lines deleted"),
    Kind("deleted artifact", 3, damage.deleted(".foundry/artifacts/*", most=1), "an artifact deleted"),
    Kind("deleted database", 4, damage.deleted(".foundry/*.db", most=1, where=S), "a database of the store deleted"),
    Kind("deleted copy", 2, damage.deleted(".foundry/*.jsonl", most=1, where=S), "a second copy deleted"),
    Kind("429", 3, surroundings.answered_with("429"), "too many requests"),
    Kind("500", 3, surroundings.answered_with("500"), "server errors"),
    Kind("529", 3, surroundings.answered_with("529"), "overloaded"),
    Kind("cut", 3, surroundings.answered_with("cut"), "replies cut in the middle"),
    Kind("slow", 3, surroundings.answered_with("timeout"), "replies that do not come in time"),
    Kind("malformed", 3, surroundings.answered_with("not_json"), "replies that are no JSON"),
    Kind("duplicated", 3, surroundings.answered_with("twice"), "replies sent twice"),
    Kind("duplicated in a batch", 2, surroundings.answered_with("duplicate", batch=True), "results that stand twice in a batch"),
    Kind("no usage", 2, surroundings.answered_with("no_usage"), "replies that do not tell their cost"),
    Kind("killed run", 10, processes.killed_run("early", "keeper_dataset_v1"), "kill -9 of the run, datasets"),
    Kind("killed judge", 2, processes.killed_run("ready", "keeper_first_eval"), "kill -9 of the run, exports to scores"),
    Kind("killed generator", 8, processes.killed_generator("early", "keeper_dataset_v1"), "kill -9 of the script that asks"),
    Kind("killed trainer", 2, processes.killed_trainer, "kill -9 of the trainer"),
    Kind("killed server", 5, processes.killed_server, "kill -9 of a server"),
    Kind("full disk", 6, surroundings.full_disk, "no room in the store", _mount),
    Kind("read-only store", 4, surroundings.read_only, "a store that may not be written", _mount),
    Kind("clock", 6, meetings.clock(meetings.ANY_CLOCK), "a clock that jumps", _faketime),
    Kind("clock far off", 4, meetings.clock(meetings.FAR_OFF), "a clock hours behind, or a month, or a year ahead", _faketime),
    Kind("two runs", 5, meetings.two_runs, "two runs of one asset at once"),
    Kind("schedule", 3, meetings.schedule, "the schedule's job during a run"),
    Kind("daemon", 1, meetings.fired_by_the_daemon, "the daemon fires the schedule during a run", _faketime),
    Kind("raylet", 0, None, "kill -9 of a raylet", lambda folder: "tests/faults/test_ray.py kills one of two nodes"),
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, help="so many of each kind that is run (default: the declared mix)")
    parser.add_argument(
        "--minutes", type=float, help="begin no fault after so long; the same command goes on from there"
    )
    parser.add_argument("--only", action="append", choices=[k.name for k in KINDS], help="this kind; may be repeated")
    parser.add_argument("--folder", type=Path, default=Path(".foundry/faults"), help="where it works and remembers")
    parser.add_argument("--fresh", action="store_true", help="forget the world and the outcomes that are kept there")
    parser.add_argument("--keep", action="store_true", help="leave the copy of a fault that fell short, to look at")
    parser.add_argument("--table", type=Path, help="where the table goes (default: benchmarks/results/)")
    given = parser.parse_args(argv)
    folder = given.folder.resolve()
    if given.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [k for k in KINDS if given.only is None or k.name in given.only]
    nursery = Nursery()
    world = World(folder / "world", nursery)
    world.prepare(lambda text: print(text, flush=True))
    outcomes = folder / f"outcomes-{given.seed}.jsonl"
    known = {(r["kind"], r["number"]): r for r in _read(outcomes)}
    lacking = {k.name: reason for k in kinds if (reason := k.lacking(folder) or (None if k.fault else "not built"))}
    plan = [(k, n) for k in kinds if k.name not in lacking for n in range(given.count or k.count)]
    # One of every kind first: a campaign that is cut short has met all of them.
    plan.sort(key=lambda item: item[1] / (given.count or item[0].count))
    rows = []
    started = time.monotonic()
    for at, (kind, number) in enumerate(plan, 1):
        row = known.get((kind.name, number))
        if row is None and given.minutes and time.monotonic() - started > 60 * given.minutes:
            continue
        if row is None:
            row = run_one(world, kind, number, given.seed, folder, keep=given.keep)
            if row["what"] != NOT_DONE:  # the same command tries again
                with outcomes.open("a", encoding="utf-8") as handle:
                    handle.write(json.dumps(row) + "\n")
        rows.append(row)
        short = "" if row["good"] else f"   FELL SHORT: {'; '.join(row['found'])[:300]}"
        left = (time.monotonic() - started) / at * (len(plan) - at)
        print(
            f"{at}/{len(plan)} [{left / 60:.0f} min left] {kind.name}: {row['what']} → {row['noticed'][:80]}"
            f" → {', '.join(row['mended_by'])[:120] or 'nothing to do'} ({row['seconds']:.0f} s){short}",
            flush=True,
        )
    if len(rows) < len(plan):
        print(f"{len(plan) - len(rows)} of {len(plan)} faults are left for the same command", flush=True)
    path = write_table(rows, [(k.name, k.about) for k in kinds], lacking, given.seed, given.table)
    print(f"\n{path.read_text(encoding='utf-8')}\n{path}")
    return 0 if all(row["good"] for row in rows) else 1


def run_one(world: World, kind: Kind, number: int, seed: int, folder: Path, *, keep: bool = False) -> dict:
    """One fault, drawn and judged, as a row."""
    place = folder / "fault" / f"{kind.name.replace(' ', '-')}-{number}-{os.getpid()}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    began = time.monotonic()
    assert kind.fault is not None
    try:
        what, outcome = kind.fault(world, place, random.Random(seed_of(seed, kind.name, number)))
    except Exception as error:
        what, outcome = NOT_DONE, Outcome()
        outcome.found.append(f"{type(error).__name__}: {error}")
        traceback.print_exc(file=sys.stderr)
        for pid in meetings.within(place):
            processes.kill(pid)
    if outcome.good or not keep:
        shutil.rmtree(place, ignore_errors=True)
    seconds = round(time.monotonic() - began, 1)
    return {
        "kind": kind.name,
        "number": number,
        "what": what,
        "seconds": seconds,
        **asdict(outcome),
        "good": outcome.good,
    }


def _read(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


if __name__ == "__main__":
    sys.exit(main())
