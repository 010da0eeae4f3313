"""Faults × outcome, as a table in Markdown."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from benchmarks.chain import machine

COLUMNS = ("lost", "paid_twice", "bypassed", "different")


def write_table(
    rows: list[dict], kinds: list[tuple[str, str]], lacking: dict[str, str], seed: int, path: Path | None = None
) -> Path:
    """Write the table; where it lies. `lacking` says why a kind was not run."""
    text = "\n".join(_lines(rows, kinds, lacking, seed)) + "\n"
    target = path or Path(__file__).resolve().parents[1] / "results" / "faults-laptop.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return target


def _lines(rows: list[dict], kinds: list[tuple[str, str]], lacking: dict[str, str], seed: int) -> list[str]:
    total = {name: sum(row[name] for row in rows) for name in COLUMNS}
    good = sum(row["good"] for row in rows)
    out = [
        "# Faults",
        "",
        f"`python -m benchmarks.faults --seed {seed}` on {machine()}: {len(rows)} faults, {good} as they should be; "
        f"{total['lost']} lost, {total['paid_twice']} paid twice, {total['bypassed']} past the gate, "
        f"{total['different']} different hashes.",
        "",
        "Each in a copy of a small project that was built by real commands (135M model, servers of Claude's and OpenAI's "
        "protocols over HTTP). After it the commands that the messages name were run; then everything was compared with the "
        "undisturbed run. *Nothing to mend*: what was changed is read by nobody, or was found whole elsewhere.",
        "",
        "| fault | what | run | noticed by the command | found by `foundry doctor` | nothing to mend | fell short | lost | paid twice | past the gate | different | s each |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, about in kinds:
        mine = [row for row in rows if row["kind"] == name]
        if name in lacking:
            out.append(f"| {name} | {about} | not run: {lacking[name]} | | | | | | | | | |")
        if not mine:
            continue
        how = Counter(_how(row) for row in mine)
        short = sum(not row["good"] for row in mine)
        sums = " | ".join(str(sum(row[c] for row in mine)) for c in COLUMNS)
        each = sum(row["seconds"] for row in mine) / len(mine)
        out.append(
            f"| {name} | {about} | {len(mine)} | {how['command']} | {how['doctor']} | {how['nothing']} | {short} | {sums} | {each:.0f} |"
        )
    commands = Counter(_general(command) for row in rows for command in row["mended_by"])
    out += ["", "Mended by: " + (", ".join(f"`{c}` {n} times" for c, n in commands.most_common()) or "nothing") + "."]
    if short_rows := [row for row in rows if not row["good"]]:
        out += ["", "## What fell short", ""]
        out += [
            f"- {row['kind']} {row['number']}, {row['what']}: {_flat('; '.join(row['found']))}" for row in short_rows
        ]
    return out


def _how(row: dict) -> str:
    if row["noticed"].startswith("by foundry doctor"):
        return "doctor"
    return "command" if row["mended_by"] or row["noticed"] in ("killed", "asked again by itself") else "nothing"


def _general(command: str) -> str:
    words = command.split()
    if words[:2] == ["foundry", "repair"]:
        return command if words[2] in ("index", "responses", "money", "ledger") else "foundry repair <asset>"
    if words[0] == "dagster":
        return "dagster asset materialize"
    return " ".join(words[:1]) if words[0] in ("rm", "mv") else command


def _flat(text: str) -> str:
    return " ".join(text.split())[:500]
