"""`foundry store`: where artifacts lie, what went to and fro, and what is kept on this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from foundry_pipeline.cli import show
from foundry_pipeline.errors import FoundryError, Locked
from foundry_pipeline.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="The store of the artifacts: a folder, or shared by a URL.")

AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of lines")]


@app.command()
def status(as_json: AsJson = False) -> None:
    """Where the store is, how many builds it holds, which of them only this machine has, what was sent and fetched."""
    show.json_or(as_json, _status(), _lines)


@app.command()
def push() -> None:
    """Send every build that only this machine has. May be stopped and repeated: what has arrived is not sent again."""
    store = _shared()
    waiting = store.pending()
    for done, record in enumerate(waiting, 1):
        store.share(record)
        show.line(f"{done}/{len(waiting)} {record.name} {record.content_hash[:12]}")
    sent = store.bucket.traffic()
    show.line(
        f"{len(waiting)} builds sent: {sent.uploaded_files} files, {sent.uploaded_bytes / 1e6:,.1f} MB; "
        f"{sent.found_files} files were there already ({sent.requests} requests)"
    )


@app.command()
def fetch(target: Annotated[str, typer.Argument(help="an asset that is built, or a content hash")]) -> None:
    """Bring one artifact to this machine, whole and verified; print its folder."""
    from foundry_pipeline.chain.graph import load_chain

    store = _shared()
    _, chain = load_chain(load_settings())
    if target in chain.stages:
        content = chain.require(target).artifact.content_hash
    else:
        found = store.contents(target) if len(target) >= 8 else []
        if len(found) != 1:
            raise FoundryError(
                f"`{target}` is no asset, and {len(found)} artifacts begin so", where=store.place, mend="foundry status"
            )
        content = found[0]
    print(store.open(content).payload)


@app.command()
def trim() -> None:
    """Drop the copies on this machine that the shared store is proven to hold whole. Nothing else is touched."""
    from foundry_pipeline.chain.mending import held_locks
    from foundry_pipeline.lineage.trimming import trim as drop

    store = _shared()
    if busy := held_locks(store.root / "locks"):
        raise Locked(
            f"something is being built or fetched here ({busy[0]}), and reads these copies",
            where=str(store.root / "locks"),
            mend="wait for it, then repeat the command",
        )
    kept, freed, count = drop(store)
    for text in kept:
        show.line(text)
    show.line(f"{count} copies dropped, {freed / 1e6:,.1f} MB freed")


def _shared() -> Any:
    from foundry_pipeline.lineage.opening import open_store

    settings = load_settings()
    if not settings.url:
        raise FoundryError(
            "the store is a folder on this machine; there is nothing to send to or fetch from",
            where=str(settings.store),
            mend="set FOUNDRY_STORE to a URL, such as s3://bucket/prefix",
        )
    return open_store(settings)


def _status() -> dict[str, Any]:
    from foundry_pipeline.lineage.opening import open_store
    from foundry_pipeline.lineage.traffic_log import read_traffic

    settings = load_settings()
    store = open_store(settings)
    records = list(store.records())
    out: dict[str, Any] = {"store": store.place, "builds": len(records)}
    if not settings.url:
        return out
    shared = _shared()
    total: dict[str, Any] = {}
    for line in read_traffic(settings.store / "traffic.jsonl"):
        for name, value in line.items():
            if isinstance(value, int):
                total[name] = total.get(name, 0) + value
    cached = len(list((settings.store / "artifacts").glob("*/manifest.json")))
    return {
        **out,
        "cache": str(settings.store),
        "artifacts_cached": cached,
        "waiting": [{"name": r.name, "content": r.content_hash} for r in shared.pending()],
        "traffic": total,
    }


def _lines(found: dict[str, Any]) -> None:
    show.line(f"{found['store']}: {found['builds']} builds")
    if "cache" not in found:
        return
    show.line(f"cache {found['cache']}: {found['artifacts_cached']} artifacts whole on this machine")
    for one in found["waiting"]:
        show.line(f"only here: {one['name']} {one['content'][:12]}  (foundry store push)")
    t = found["traffic"]
    show.line(
        f"so far from here: sent {t.get('uploaded_files', 0)} files, {t.get('uploaded_bytes', 0) / 1e6:,.1f} MB; fetched "
        f"{t.get('downloaded_files', 0)} files, {t.get('downloaded_bytes', 0) / 1e6:,.1f} MB; {t.get('found_files', 0)} were "
        f"where they should be; {t.get('requests', 0)} requests"
    )
