"""`foundry trace`: which data produced which score, back to the documents and forward from one."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from foundry_pipeline.cli import show
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import load_settings

_SHOWN = 12


def register(app: typer.Typer) -> None:
    app.command()(trace)


def trace(
    target: Annotated[str, typer.Argument(help="an asset, a score id, an input hash; with --forward a document")],
    forward: Annotated[bool, typer.Option("--forward", help="list every score that a document touched")] = False,
    pairs: Annotated[int, typer.Option(min=0, help="how many pairs to print (all of them in --json)")] = 5,
    verify: Annotated[
        bool, typer.Option("--verify", help="read every file on the way, compare it with its hash")
    ] = False,
    openlineage: Annotated[
        bool, typer.Option("--openlineage", help="print OpenLineage run events, one JSON object a line")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a tree")] = False,
) -> None:
    """Which data produced which score: score → adapter → dataset → pairs → passages → documents, by hash."""
    from foundry_pipeline.chain import scores as walk
    from foundry_pipeline.chain.graph import load_chain

    if forward and (openlineage or verify) or openlineage and as_json:
        raise FoundryError(
            "these options do not go together",
            where="foundry trace",
            mend="--openlineage and --verify trace back from a score; --openlineage prints JSON lines by itself",
        )
    _, chain = load_chain(load_settings())
    if forward:
        show.json_or(as_json, walk.trace_forward(chain, target), forward_table)
        return
    way = walk.trace(chain, target, verify=verify)
    if openlineage:
        from foundry_pipeline.lineage.openlineage import event_lines

        sys.stdout.writelines(event_lines(way))
        sys.stdout.flush()
        return
    show.json_or(as_json, way.to_json(), lambda data: trace_tree(data, pairs))


def forward_table(rows: list[dict[str, Any]]) -> None:
    """Scores that a document touched, how, and whether they still stand."""
    table = Table(title="scores that this document touched", title_justify="left")
    for head in ("score", "run", "mode", "judge", "overall", "pairs from it", "elsewhere", "judge read it", "dataset"):
        table.add_column(head, no_wrap=True)
    table.add_column("stale because")
    for r in rows:
        cells = (
            r["score_id"][:10],
            r["run"],
            r["mode"],
            r["judge"],
            _number(r["overall"]),
            str(r["pairs_touched"]),
            ", ".join(f"{n} in {name}" for name, n in r["upstream_pairs"].items()) or "–",
            "yes" if r["read_by_judge"] else "no",
            r["dataset"],
            r["stale"][0] + (f" (and {len(r['stale']) - 1} more)" if len(r["stale"]) > 1 else "") if r["stale"] else "",
        )
        table.add_row(*(Text(plain(cell)) for cell in cells))
    show.console().print(table)


def trace_tree(way: dict[str, Any], pairs: int) -> None:
    """Score → why it is stale → artifacts → pairs → passages → documents."""
    root = Tree(Text(plain(way["target"]), style="bold"))
    scores = root.add("scores")
    for s in way["scores"]:
        stale = "  STALE" if s["stale"] else ""
        interval = f"[{_number(s['overall_low'])}, {_number(s['overall_high'])}]"
        _leaf(scores, f"{s['mode']}: {_number(s['overall'])} {interval} by {s['judge']} ({s['score_id'][:12]}){stale}")
    if not way["scores"]:
        scores.add("none recorded for this build")
    if way["stale"]:
        why = root.add("stale: the declarations call for another one now, because")
        for reason in way["stale"][:_SHOWN]:
            _leaf(why, reason["told"])
        if len(way["stale"]) > _SHOWN:
            _leaf(why, f"… {len(way['stale']) - _SHOWN} more (--json)")
    artifacts = root.add("artifacts")
    for n in way["nodes"]:
        stale = "" if n["current"] else "  (stale: not what the declarations call for now)"
        note = f"  ({n['note']})" if n["note"] else ""
        branch = _leaf(artifacts, f"{n['name']}  {n['content_hash']}{stale}{note}")
        if n["inputs"]:
            _leaf(branch, "from " + ", ".join(n["inputs"]))
    listed = root.add(f"pairs: {len(way['pairs'])}")
    for p in way["pairs"][:pairs]:
        quoted = ", ".join(x[:12] for x in p["passage_ids"] or ())
        _leaf(listed, f"{p['pair_id']}  {p['prompt_id']} ({p['origin']}, rejected by {p['student']}) ← {quoted}")
    if len(way["pairs"]) > pairs:
        listed.add(f"… {len(way['pairs']) - pairs} more (--pairs N, or --json)")
    by_document: dict[str, int] = {}
    for p in way["passages"]:
        by_document[p["document_id"]] = by_document.get(p["document_id"], 0) + 1
    documents = root.add(f"passages: {len(way['passages'])}, from documents: {len(way['documents'])}")
    for document in way["documents"]:
        used = by_document.get(document["document_id"], 0)
        about = (document["raw_sha256"], document["date"], f"{used} passages", document["url"])
        _leaf(documents, "  ".join((document["document_id"], *map(str, about))))
    show.console().print(root, soft_wrap=True)


def _leaf(tree: Tree, text: str) -> Tree:
    # What a source or a declaration says is shown, never read as markup or obeyed by the terminal.
    return tree.add(Text(plain(text)))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
