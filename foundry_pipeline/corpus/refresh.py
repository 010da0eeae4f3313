"""Refreshing a source: ask for each of its documents, keep what has changed, lose nothing.

    >>> report = refresh_source(manifest, character="madison", base=folder, store=store)
    >>> [(o.key, o.state, o.requests) for o in report.outcomes]
    [('letter', 'unchanged', 1)]

A refresh that fails half-way leaves every document with its last good content, and the source as it was after the last
whole refresh. One that was killed goes on where it stopped: what was asked within the last hour is not asked again.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from foundry_pipeline.corpus.addresses import FetchError, is_main_gutenberg
from foundry_pipeline.corpus.connectors.base import Place, asked
from foundry_pipeline.corpus.connectors.reading import CONNECTORS
from foundry_pipeline.corpus.fetch import Fetcher
from foundry_pipeline.corpus.pace import Pace, Refused
from foundry_pipeline.corpus.session import Report, Session, now
from foundry_pipeline.corpus.snapshot import snapshot_folder
from foundry_pipeline.declarations.network import FetchLimits
from foundry_pipeline.declarations.sources import SourceManifest
from foundry_pipeline.errors import DeclarationError, FoundryError
from foundry_pipeline.lineage.store import Store, write_json

RESUME_WITHIN = 3600.0  # seconds: an unfinished refresh that is older than this starts over


def limits_of(place: Place) -> FetchLimits | None:
    """The limits of a source that is fetched; None for one that is read from this machine."""
    connector = CONNECTORS[place.manifest.connector.kind]
    if connector.refresh is None or not connector.fetched(place):
        return None
    limits = getattr(place.manifest.connector, "fetch", None)
    assert isinstance(limits, FetchLimits)
    return limits


def asked_of(place: Place) -> str:
    """Digest of what a fetched source's manifest asks for."""
    asks = CONNECTORS[place.manifest.connector.kind].asks
    assert asks is not None
    return asked(place.manifest.connector.kind, asks(place))


def due(place: Place) -> bool:
    """Whether a build should ask again: never fetched, declared otherwise since, or longer ago than `every_hours`."""
    limits = limits_of(place)
    if limits is None:
        return False
    contents = place.snapshot.contents()
    if contents is None or contents.asked != asked_of(place):
        return True
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(contents.completed_at)
    return age >= dt.timedelta(hours=limits.every_hours)


def refresh_source(
    manifest: SourceManifest,
    *,
    character: str,
    base: Path,
    store: Store,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Ask for every document of a fetched source. What goes wrong is in the report; only Locked is raised."""
    place, report, started = Place(manifest, base, snapshot_folder(store.root, character)), Report(manifest.source), 0.0
    limits = limits_of(place)
    if limits is None:
        raise ValueError(f"`{manifest.source}` is not fetched from anywhere")
    started = time.monotonic()
    with store.lock(f"sources-{character}-{manifest.source}", name=f"the source `{manifest.source}`"):
        fetcher = Fetcher(limits, pace=Pace(store.root / "sources" / ".hosts"), allowed=_allowed(place))
        try:
            with fetcher:
                _refresh(place, fetcher, report, say)
        except FoundryError as error:
            report.error = error
    report.requests, report.seconds = fetcher.requests, time.monotonic() - started
    return report


def _refresh(place: Place, fetcher: Fetcher, report: Report, say: Callable[[str], None]) -> None:
    snapshot, asks = place.snapshot, asked_of(place)
    ask = CONNECTORS[place.manifest.connector.kind].refresh
    assert ask is not None
    incoming = snapshot.temporary()
    unfinished = snapshot.folder / "unfinished.json"
    session = Session(snapshot, fetcher, incoming, _begin(unfinished, asks), report, say)
    try:
        ask(place, session)
    except Refused:
        raise  # most of it may be done: the next refresh goes on from here
    except FoundryError:
        unfinished.unlink(missing_ok=True)
        raise
    former = snapshot.contents()
    if former is not None and former.asked == asks:
        session.gone_from_list([key for key in former.keys if key not in session.keys])
    if not report.failed:
        snapshot.complete(
            asked=asks, keys=session.keys, left_out=session.left_out, requests=fetcher.requests, now=now()
        )
    unfinished.unlink(missing_ok=True)


def _begin(path: Path, asks: str) -> str:
    """Since when answers count as this refresh's own: since an unfinished one began, or empty for a new one."""
    at = now()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        age = dt.datetime.fromisoformat(at) - dt.datetime.fromisoformat(found["began"])
        if found["asked"] == asks and dt.timedelta(0) <= age < dt.timedelta(seconds=RESUME_WITHIN):
            return str(found["began"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # None, or one cut short by a kill: a refresh that begins now is right in either case.
    write_json(path, {"began": at, "asked": asks})
    return ""


def _allowed(place: Place) -> Callable[[str], None]:
    judge = CONNECTORS[place.manifest.connector.kind].allowed

    def allowed(url: str) -> None:
        if is_main_gutenberg(url):
            raise FetchError(
                "the main site of Project Gutenberg is for people; programs that read it are blocked",
                where=url[:200],
                mend="use `kind: gutenberg` with a `mirror` (https://www.gutenberg.org/MIRRORS.ALL lists them), or "
                "download the file in a browser and name it by `path`",
            )
        if why := judge(place, url):
            raise FetchError(why, where=url[:200], mend="declare the host in the manifest if you trust it")

    return allowed


def refresh_character(
    manifests: Mapping[str, SourceManifest],
    *,
    character: str,
    base: Path,
    store: Store,
    only: str | None = None,
    if_due: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> list[Report]:
    """Refresh every fetched source of a character (`only` one of them; `if_due` those that a build should ask again).

    Raises DeclarationError if `only` is no source that is fetched.
    """
    places = {n: Place(m, base, snapshot_folder(store.root, character)) for n, m in manifests.items()}
    fetched = [n for n, place in places.items() if limits_of(place) is not None]
    if only is not None and only not in fetched:
        known = f"fetched are: {', '.join(fetched)}" if fetched else "no source of this character is fetched"
        what = "is read from this machine, there is nothing to refresh" if only in manifests else "is no source"
        raise DeclarationError(f"`{only}` {what}", where=f"sources/{character}/manifests", mend=known)
    if fetched:
        store.sync_sources(character)  # another machine may have asked since
    reports = []
    for name in fetched:
        if only in (None, name) and (not if_due or due(places[name])):
            say(f"source {name}")
            reports.append(refresh_source(manifests[name], character=character, base=base, store=store, say=say))
    if reports:
        store.sync_sources(character)
    return reports
