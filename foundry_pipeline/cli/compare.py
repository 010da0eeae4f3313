"""`foundry sources compare`: two transcriptions of one text, side by side."""

from __future__ import annotations

import difflib
import json
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foundry_pipeline.cli import show
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import load_settings

Document = Annotated[str, typer.Argument(help="a document or variant, as `foundry sources list` names it")]
SHOWN = 60  # characters of a reading in the table; --json has all


def compare(
    a: Document,
    b: Document,
    cleaned: Annotated[
        bool, typer.Option("--cleaned", help="as the cleaning rules leave them, not as transcribed")
    ] = False,
    rows: Annotated[int, typer.Option(min=0, help="how many differences to print (all of them in --json)")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Align two documents word by word and list where they differ: spelling, punctuation, case, words, missing words."""
    from foundry_pipeline.corpus import transcriptions

    texts = _texts({a, b}, cleaned)
    found = transcriptions.compare(texts[a], texts[b], a=a, b=b)
    data = {
        "document_a": a,
        "document_b": b,
        "words_a": found.words_a,
        "words_b": found.words_b,
        "equal": found.equal,
        "counts": found.counts,
        "differences": [vars(d) for d in found.differences],
    }
    if as_json:  # ASCII alone: a transcription may hold marks that a terminal would obey
        print(json.dumps(data, indent=1, ensure_ascii=True))
    else:
        _view(data, rows)


def _texts(wanted: set[str], cleaned: bool) -> dict[str, str]:
    """The wanted documents of all characters; raises FoundryError naming one that no source has."""
    from foundry_pipeline.corpus.cleaning import clean
    from foundry_pipeline.corpus.connectors import read_all
    from foundry_pipeline.corpus.snapshot import snapshot_folder
    from foundry_pipeline.declarations import load

    settings = load_settings()
    texts: dict[str, str] = {}
    known: list[str] = []
    unread: list[str] = []
    for name, files in load(settings.root, settings.profile).characters.items():
        base, snapshots = files.folder / "manifests", snapshot_folder(settings.store, name)
        for manifest in files.manifests.values():
            try:
                documents = read_all(manifest, base=base, snapshots=snapshots)
            except FoundryError as error:  # told below, if a document that is asked for is not found elsewhere
                unread.append(f"{manifest.source}: {error.what}")
                continue
            known.extend(d.document_id for d in documents)
            texts.update({d.document_id: d.raw for d in documents if d.document_id in wanted})
            if cleaned and wanted & {d.document_id for d in documents}:
                done, _ = clean(manifest, [d for d in documents if not d.variant_of])
                texts.update({d.document_id: d.text for d in done if d.document_id in wanted})
    missing = sorted(wanted - set(texts))
    if missing:
        close = difflib.get_close_matches(missing[0], known, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        unreadable = f" (could not be read: {'; '.join(unread)})" if unread else ""
        raise FoundryError(
            f"no source has a document `{plain(missing[0])}`{hint}{plain(unreadable)}",
            where="foundry sources compare",
            mend="foundry sources list <character>",
        )
    return texts


def _view(data: dict[str, Any], rows: int) -> None:
    counts = ", ".join(f"{count} {kind}" for kind, count in data["counts"].items() if count) or "none"
    show.line(
        plain(
            f"{data['document_a']} ({data['words_a']:,} words) and {data['document_b']} ({data['words_b']:,} words): "
            f"{data['equal']:.2%} of words equal; differences: {counts}"
        )
    )
    table = Table(box=None, pad_edge=False)
    for head in ("kind", "at", data["document_a"], "at", data["document_b"]):
        table.add_column(Text(plain(head)))
    for d in data["differences"][:rows]:
        cells = (d["kind"], f"{d['offset_a']}", _short(d["text_a"]), f"{d['offset_b']}", _short(d["text_b"]))
        table.add_row(*(Text(cell) for cell in cells))
    if data["differences"] and rows:
        show.console().print(table)
    left = len(data["differences"]) - rows
    if left > 0:
        show.line(f"… and {left} more; --rows {len(data['differences'])} or --json shows them")


def _short(text: str) -> str:
    shown = plain(" ".join(text.split())) or "–"
    return shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 1]}…"
