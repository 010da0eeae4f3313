"""Founders Online: letters and papers through its API, selected from its metadata list.

    >>> [i.stem for i in items(Place(manifest, base, snapshots))][:1]       # documents: [Madison/01-10-02-0178]
    ['Madison-01-10-02-0178']

The list (`Metadata/founders-online-metadata.json`) holds a record a document: `title`, `permalink`, `project`, `authors`,
`recipients`, `date-from`, `date-to`; the id is what follows `/documents/` in the permalink. `API/docdata/{id}` answers
with the same facts and `content`, the text without its notes. `date-from` is null for an editor's own matter and for the
few documents that nobody could date. At most 10 requests a second are asked for (https://founders.archives.gov/API/docdata).
The site lies behind a firewall that answers programs with an empty 202 at times; the list and the answers may therefore
also be files, saved with a browser.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from foundry_pipeline.corpus.addresses import FetchError
from foundry_pipeline.corpus.connectors.base import (
    Item,
    Place,
    asked,
    fetched_facts,
    mended,
    parse_json,
    sha256,
    whole_text,
    whose,
)
from foundry_pipeline.declarations.network import FoundersLetters, FoundersSelection, check_founders_id
from foundry_pipeline.errors import DeclarationError, FoundryError

if TYPE_CHECKING:
    from foundry_pipeline.corpus.session import Session

_MARK = "/documents/"


def fetched(place: Place) -> bool:
    return not _connector(place).answers


def asks(place: Place) -> dict[str, Any]:
    return _connector(place).model_dump(mode="json", include={"base", "documents", "select", "metadata"})


def allowed(place: Place, url: str) -> str:
    base = _connector(place).base.rstrip("/")
    return "" if url.startswith(f"{base}/") else f"an address outside {base}"


def refresh(place: Place, session: Session) -> None:
    connector = _connector(place)
    base = connector.base.rstrip("/")
    identifiers, listed = connector.documents, False
    if connector.select is not None:
        identifiers, listed = tuple(_selected(place, connector, connector.select, session)), True
    for identifier in identifiers:
        session.text(identifier, f"{base}/API/docdata/{identifier}", expect="json", listed=listed)


def facts(place: Place) -> dict[str, Any]:
    connector = _connector(place)
    if fetched(place):
        return fetched_facts(place, asks(place))
    return {"version": "", "files": [(identifier, sha256(data)) for identifier, data in _saved(place, connector)]}


def items(place: Place) -> Iterator[Item]:
    """The documents, as the API gave them. Raises DeclarationError for one without a date, FoundryError for a damaged one."""
    connector = _connector(place)
    found: Iterator[tuple[str, bytes]]
    if fetched(place):
        snapshot = place.snapshot
        found = ((r.key, snapshot.data(r)) for r in snapshot.documents(asked("founders", asks(place))))
        mend = snapshot.command
    else:
        found = _saved(place, connector)
        mend = "save the API's answer again"
    for identifier, data in found:
        where = f"Founders Online, {identifier}"
        answer = _answer(parse_json(data, where=where, mend=mend), where, mend)
        date = answer["date-from"] or answer["date-to"] or connector.dates.get(identifier, "")
        if not date and connector.undated == "skip":
            continue
        if not date:
            raise DeclarationError(
                f"the edition gives no date for `{identifier}` ({answer['title']!r})",
                where=f"{place.where}, field `connector.dates`",
                mend=f"add `{identifier}: YYYY-MM-DD` (or YYYY) to `dates`, or set `undated: skip`",
            )
        author, role = whose(connector.author_names, answer["authors"], place.manifest)
        yield Item(
            stem=identifier.replace("/", "-"),
            where=where,
            text=whole_text(answer["content"], where=where, mend=mend),
            title=answer["title"],
            date=date,
            url=answer["permalink"] or f"{connector.base.rstrip('/')}{_MARK}{identifier}",
            author=author,
            role=role,
        )


def _answer(value: Any, where: str, mend: str) -> dict[str, Any]:
    """The fields of one answer of the API, in the types that it documents."""
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise FoundryError("the answer holds no `content`", where=where, mend=mend)
    record = _record(value, where)
    return {**record, "content": value["content"]}


def _record(value: Any, where: str) -> dict[str, Any]:
    """The facts that list and API give alike; null counts as absent."""
    if not isinstance(value, dict):
        raise FoundryError("a record of the list is no object", where=where, mend="get the list again")
    out: dict[str, Any] = {}
    for name in ("title", "permalink", "project", "date-from", "date-to"):
        found = value.get(name)
        if found is not None and not isinstance(found, str):
            raise FoundryError(f"`{name}` is no text but {type(found).__name__}", where=where, mend="get it again")
        out[name] = mended((found or "").strip())
    for name in ("authors", "recipients"):
        found = value.get(name) or []
        names = [found] if isinstance(found, str) else found
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise FoundryError(f"`{name}` is no list of names", where=where, mend="get it again")
        out[name] = [mended(n.strip()) for n in names if n.strip()]
    return out


def _selected(place: Place, connector: FoundersLetters, select: FoundersSelection, session: Session) -> Iterator[str]:
    """Ids of the records that the selection names, by date and id."""
    where, mend = "the metadata list of Founders Online", session.snapshot.command
    if connector.metadata.startswith("file:"):
        path = place.base / connector.metadata.removeprefix("file:")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise FoundryError(
                f"the metadata list cannot be read ({error.strerror})",
                where=str(path),
                mend=f"save {connector.base.rstrip('/')}/Metadata/founders-online-metadata.json there with a browser",
            ) from error
    else:
        data = session.list_("metadata", f"{connector.base.rstrip('/')}/{connector.metadata.lstrip('/')}")
    value = parse_json(data, where=where, mend=mend)
    if not isinstance(value, list):
        raise FoundryError("the metadata list is no list of records", where=where, mend=mend)
    chosen: list[tuple[str, str]] = []
    for entry in value:
        record = _record(entry, where)
        if not _matches(record, select):
            continue
        identifier = record["permalink"].partition(_MARK)[2].strip("/")
        try:
            check_founders_id(identifier)
        except ValueError as error:
            raise FetchError(
                f"a record has a permalink without an id: {record['permalink'][:100]!r}", where=where, mend=mend
            ) from error
        if identifier in select.exclude:
            continue
        chosen.append((record["date-from"] or record["date-to"], identifier))
    chosen = sorted(set(chosen))
    if not chosen:
        raise FetchError(
            f"no record of the list ({len(value):,} records) is selected",
            where=f"{place.where}, field `connector.select`",
            mend="names are written as in `Madison, James`; editions as in `Madison Papers`",
        )
    if select.at_most is not None:
        for _, identifier in chosen[select.at_most :]:
            session.leave_out(identifier, "beyond `select.at_most`")
        chosen = chosen[: select.at_most]
    return iter([identifier for _, identifier in chosen])


def _matches(record: dict[str, Any], select: FoundersSelection) -> bool:
    for wanted, there in (
        (select.authors, record["authors"]),
        (select.recipients, record["recipients"]),
        (select.projects, [record["project"]]),
    ):
        if wanted and not set(wanted) & set(there):
            return False
    first = record["date-from"] or record["date-to"]
    last = record["date-to"] or record["date-from"]
    if select.date_from is None and select.date_to is None:
        return True
    if not first:
        return False
    # ISO dates compare as text; one that names a year or month alone lasts to its end.
    after = select.date_from is None or f"{last}-99-99"[:10] >= select.date_from.isoformat()
    before = select.date_to is None or first <= select.date_to.isoformat()
    return after and before


def _saved(place: Place, connector: FoundersLetters) -> Iterator[tuple[str, bytes]]:
    """Answers saved as files: `<project>/<id>.json` below the folder, those that the manifest names or selects."""
    folder = place.base / connector.answers
    if not folder.is_dir():
        raise FoundryError("the folder of saved answers is missing", where=str(folder), mend=f"mkdir -p '{folder}'")
    identifiers = list(connector.documents)
    if connector.select is not None:
        identifiers = sorted(f"{p.parent.name}/{p.stem}" for p in folder.glob("*/*.json"))
    found = 0
    for identifier in identifiers:
        path = folder / f"{identifier}.json"
        if path.is_symlink() or path.parent.is_symlink():
            raise FoundryError("a saved answer is a link", where=str(path), mend="put the file itself there")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise FoundryError(
                f"a saved answer cannot be read ({error.strerror})",
                where=str(path),
                mend=f"save {connector.base.rstrip('/')}/API/docdata/{identifier} there",
            ) from error
        select = connector.select
        if select is not None:
            record = _record(parse_json(data, where=str(path), mend="save it again"), str(path))
            # An answer does not name its edition; the folder does.
            if identifier in select.exclude or not _matches(
                {**record, "project": f"{path.parent.name} Papers"}, select
            ):
                continue
        found += 1
        yield identifier, data
    if not found:
        raise FoundryError(
            "no saved answer is selected",
            where=str(folder),
            mend="save answers as <project>/<id>.json, or correct `select`",
        )


def _connector(place: Place) -> FoundersLetters:
    connector = place.manifest.connector
    assert isinstance(connector, FoundersLetters)
    return connector
