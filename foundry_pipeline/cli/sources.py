"""`foundry sources`: what is read, where from, and when it was last asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foundry_pipeline.cli import show
from foundry_pipeline.cli.compare import compare
from foundry_pipeline.errors import DeclarationError, FoundryError
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import load_settings

if TYPE_CHECKING:
    from foundry_pipeline.corpus.snapshot import Fetched
    from foundry_pipeline.declarations import CharacterFiles

app = typer.Typer(no_args_is_help=True, help=__doc__)
app.command()(compare)

AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Who = Annotated[str, typer.Argument(help="a declared character, such as madison")]


@app.command()
def refresh(
    character: Who,
    source: Annotated[str | None, typer.Option(help="only this source")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask every remote source for its documents again: unchanged ones cost one request, vanished ones are kept.

    Exit code 1 if a document or a source could not be had; what was fetched before is never lost.
    """
    from foundry_pipeline.corpus.refresh import refresh_character
    from foundry_pipeline.lineage.opening import open_store

    settings = load_settings()
    files = _files(character)
    reports = refresh_character(
        files.manifests,
        character=character,
        base=files.folder / "manifests",
        store=open_store(settings),
        only=source,
        say=(lambda text: None) if as_json else lambda text: show.line(plain(text)),
    )
    found = [r.to_json() for r in reports]
    show.json_or(as_json, found, lambda rows: _refreshed(character, rows))
    if any(r.failed for r in reports):
        raise typer.Exit(1)


def _refreshed(character: str, reports: list[dict[str, Any]]) -> None:
    if not reports:
        show.line(f"no source of {character} is fetched from anywhere; all are read from this machine")
    for report in reports:
        counts = ", ".join(f"{n} {state}" for state, n in report["counts"].items() if n)
        show.line(
            f"{report['source']}: {counts or 'nothing'}; {report['requests']} requests in {report['seconds']:.1f} s"
        )
        if report["error"]:
            show.line("\n".join(plain(line) for line in f"error: {report['error']}".splitlines()))


@app.command(name="list")
def list_(
    character: Who,
    source: Annotated[str | None, typer.Option(help="only this source")] = None,
    as_json: AsJson = False,
) -> None:
    """Every document: author, words, where from, and when it was fetched."""
    files = _files(character)
    if source is not None and source not in files.manifests:
        raise DeclarationError(
            f"`{source}` is no source of {character}", mend=f"name one of: {', '.join(sorted(files.manifests))}"
        )
    found = [_listed(files, name) for name in sorted(files.manifests) if source in (None, name)]
    show.json_or(as_json, found, _documents)
    if any(row["error"] for row in found):
        raise typer.Exit(1)


def _listed(files: CharacterFiles, name: str) -> dict[str, Any]:
    """One source as JSON: its documents, or the error that keeps them from being read."""
    from foundry_pipeline.corpus.connectors import read_all
    from foundry_pipeline.corpus.connectors.base import Place
    from foundry_pipeline.corpus.refresh import limits_of
    from foundry_pipeline.corpus.snapshot import snapshot_folder

    manifest, base = files.manifests[name], files.folder / "manifests"
    snapshots = snapshot_folder(load_settings().store, files.character.character)
    place = Place(manifest, base, snapshots)
    out: dict[str, Any] = {"source": name, "kind": manifest.connector.kind, "license": manifest.license}
    try:
        contents = place.snapshot.contents() if limits_of(place) is not None else None
        records = {} if contents is None else _by_address(filter(None, map(place.snapshot.record, contents.keys)))
        documents = [
            {
                "document_id": d.document_id,
                "title": d.title,
                "author": d.author,
                "role": d.role,
                "date": d.date,
                "words": len(d.raw.split()),
                "url": d.url,
                "variant_of": d.variant_of,
                "fetched_at": record.fetched_at if record else "",
                "checked_at": record.checked_at if record else "",
                "vanished_at": record.vanished_at if record else "",
                "sha256": d.raw_sha256,
            }
            for d in read_all(manifest, base=base, snapshots=snapshots)
            for record in [records.get(d.url) or records.get(_tail(d.url))]
        ]
        left_out = {} if contents is None else contents.left_out
        return {**out, "documents": documents, "left_out": left_out, "error": None}
    except FoundryError as error:
        return {**out, "documents": [], "left_out": {}, "error": str(error)}


def _by_address(records: Iterable[Fetched]) -> dict[str, Fetched]:
    """Records by the address of the text, and by the end of the page's address where that is another one."""
    out: dict[str, Fetched] = {}
    for record in records:
        out[record.url] = out[_tail(f"/{record.facts.get('item', record.key)}")] = record
    return out


def _tail(url: str) -> str:
    """What a permalink of Founders Online or an item of the Library of Congress ends with."""
    return url.partition("/documents/")[2] or url.rstrip("/").rsplit("/item/")[-1].lstrip("/")


def _documents(sources: list[dict[str, Any]]) -> None:
    for row in sources:
        _table(row)


def _table(row: dict[str, Any]) -> None:
    documents = row["documents"]
    words = sum(d["words"] for d in documents)
    table = Table(title=Text(f"{row['source']} · {row['kind']} · {len(documents)} documents, {words:,} words"))
    table.title_justify = "left"
    for head in ("document", "date", "author", "role", "words", "fetched", "title"):
        table.add_column(head, justify="right" if head == "words" else "left", overflow="fold")
    for d in documents:
        fetched = (d["fetched_at"] or "")[:16].replace("T", " ")
        if d["vanished_at"]:
            fetched += f", vanished {d['vanished_at'][:10]}"
        role = f"{d['role']}, version of {d['variant_of']}" if d["variant_of"] else d["role"]
        cells = (d["document_id"], d["date"], d["author"], role, f"{d['words']:,}", fetched, d["title"])
        table.add_row(*[Text(plain(str(cell), 120)) for cell in cells])
    if documents or not row["error"]:
        show.console().print(table)
    for key, why in row["left_out"].items():
        show.line(f"left out: {plain(key, 100)}: {plain(why, 200)}")
    if row["error"]:
        show.line("\n".join(plain(line) for line in f"error: {row['error']}".splitlines()))


def _files(character: str) -> CharacterFiles:
    from foundry_pipeline.declarations import load

    settings = load_settings()
    declared = load(settings.root, settings.profile).characters
    if character not in declared:
        raise DeclarationError(
            f"`{character[:80]}` is no declared character", mend=f"name one of: {', '.join(sorted(declared))}"
        )
    return declared[character]
