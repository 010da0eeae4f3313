"""Library of Congress: items of loc.gov and their full text, through its JSON (`fo=json`).

    >>> [i.stem for i in items(Place(manifest, base, snapshots))]           # items: [mjm023001]
    ['mjm023001']

A search answers with `results` and `pagination` (`of`, `next`); an item with `item` (`title`, `date`, `contributor_names`)
and `resources`, each of which may name a `fulltext_file`: plain text, or JSON that holds it as `{"full_text": …}`, once or
for every segment. An item whose resources have none is pictures only. Limits, with blocks of five minutes to an hour:
https://www.loc.gov/apis/json-and-yaml/working-within-limits/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from foundry_pipeline.corpus.addresses import FetchError, joined
from foundry_pipeline.corpus.connectors.base import (
    Item,
    Place,
    asked,
    fetched_facts,
    mended,
    parse_json,
    whole_text,
    whose,
)
from foundry_pipeline.corpus.formats import iso_date, read_format
from foundry_pipeline.corpus.snapshot import Fetched, Snapshot
from foundry_pipeline.declarations.network import LocFacts, LocItems
from foundry_pipeline.errors import DeclarationError, FoundryError

if TYPE_CHECKING:
    from foundry_pipeline.corpus.session import Session

_ITEM = re.compile(r"/item/([A-Za-z0-9._-]+)/?")
_TEXT_FIELDS = ("full_text", "fulltext", "text")
# What the catalogue writes behind a name to say what part he had in the item.
_PART = re.compile(r",?\s+\(?(author|creator|writer|correspondent|compiler|editor)\)?\.?$", re.I)


def asks(place: Place) -> dict[str, Any]:
    return _connector(place).model_dump(mode="json", include={"base", "items", "search", "exclude", "at_most"})


def allowed(place: Place, url: str) -> str:
    connector = _connector(place)
    here = urlsplit(url)
    # A host is named with its port, if it has an unusual one: another port is another server.
    known = here.netloc == urlsplit(connector.base).netloc or here.netloc in connector.hosts
    return "" if known else f"{here.netloc} is neither the Library's nor named in `connector.hosts`"


def refresh(place: Place, session: Session) -> None:
    connector = _connector(place)
    found = _searched(connector, session) if connector.search else ((i, None) for i in connector.items)
    for item, result in found:
        if item in connector.exclude:
            continue
        texts = [] if result is None else _texts(result, result)
        about = result
        if not texts:
            url = f"{connector.base.rstrip('/')}/item/{item}/?fo=json"
            answer = parse_json(session.list_(f"item {item}", url), where=url, mend=session.snapshot.command)
            if not isinstance(answer, dict) or not isinstance(answer.get("item"), dict):
                raise FetchError("the answer holds no `item`", where=url, mend="see whether the id is right")
            about, texts = answer["item"], _texts(answer, answer["item"])
        assert about is not None
        if not texts:
            why = "no full text: its resources are pictures only"
            session.leave_out(item, why) if connector.search else session.fail(item, why)
        for number, address in enumerate(texts):
            told = {"item": item, "part": number, **_about(about)}
            session.text(
                item if len(texts) == 1 else f"{item} part {number + 1}",
                joined(connector.base, address),
                expect="text",
                facts=told,
                listed=bool(connector.search),
            )


def facts(place: Place) -> dict[str, Any]:
    return fetched_facts(place, asks(place))


def items(place: Place) -> Iterator[Item]:
    """The items' texts, the parts of each one after the other.

    Raises DeclarationError for one without a date, FoundryError for a text in no form that is known.
    """
    connector, snapshot = _connector(place), place.snapshot
    parts: dict[str, list[Fetched]] = {}
    for record in snapshot.documents(asked("loc", asks(place))):
        parts.setdefault(str(record.facts["item"]), []).append(record)
    for item, records in parts.items():
        told, declared = records[0].facts, connector.facts.get(item, LocFacts())
        records.sort(key=lambda r: int(r.facts["part"]))
        date = declared.date or str(told["date"])
        if not date:
            raise DeclarationError(
                f"the catalogue gives no date for `{item}` ({told['title']!r})",
                where=f"{place.where}, field `connector.facts.{item}.date`",
                mend="give it there as YYYY-MM-DD, YYYY-MM or YYYY",
            )
        author, role = whose(connector.author_names, [str(n) for n in told["authors"]], place.manifest)
        if declared.author:
            own = declared.author == place.manifest.author
            author, role = declared.author, place.manifest.role if own else "control"
        yield Item(
            stem=item,
            where=records[0].url,
            text="\n\n".join(_text(snapshot, record) for record in records),
            title=declared.title or str(told["title"]) or place.manifest.title,
            date=date,
            url=f"{connector.base.rstrip('/')}/item/{item}/",
            author=author,
            role=declared.role or role,
        )


# ---- search and catalogue ----


def _searched(connector: LocItems, session: Session) -> Iterator[tuple[str, dict[str, Any]]]:
    """(item id, result) of every result, page after page."""
    url, seen, found = _as_json(joined(connector.base, connector.search)), set(), set()
    while url and url not in seen:
        seen.add(url)
        page = parse_json(session.list_(f"page {len(seen)}", url), where=url, mend=session.snapshot.command)
        results = page.get("results") if isinstance(page, dict) else None
        if not isinstance(results, list):
            raise FetchError("the answer holds no `results`", where=url, mend="see what the address shows in a browser")
        pagination = page.get("pagination")
        pagination = pagination if isinstance(pagination, dict) else {}
        total = pagination.get("of")
        if isinstance(total, int) and total > connector.at_most:
            raise FetchError(
                f"the search finds {total:,} items, more than the {connector.at_most:,} of `connector.at_most`",
                where=url,
                mend="narrow the search, or raise `at_most`",
            )
        for result in results:
            match = _ITEM.search(str(result.get("id", ""))) if isinstance(result, dict) else None
            if match is None:
                named = str(result.get("id") or result.get("title"))[:120] if isinstance(result, dict) else "?"
                session.leave_out(mended(named), "a result that is no item")
            elif match.group(1) not in found:
                found.add(match.group(1))
                if len(found) > connector.at_most:
                    raise FetchError(
                        f"the search finds more than the {connector.at_most:,} items of `connector.at_most`",
                        where=url,
                        mend="narrow the search, or raise `at_most`",
                    )
                yield match.group(1), result
        following = pagination.get("next")
        url = _as_json(joined(url, following)) if isinstance(following, str) and following else ""
    if not found:
        raise FetchError(
            "the search finds no item", where=f"{connector.base}{connector.search}", mend="correct `search`"
        )


def _as_json(url: str) -> str:
    """The address with `fo=json`: the Library's own `next` links leave it out at times."""
    parts = urlsplit(url)
    query = [(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if k != "fo"]
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode([*query, ("fo", "json")]), ""))


def _texts(answer: dict[str, Any], item: dict[str, Any]) -> list[str]:
    """Addresses of an item's full texts, in the order of its resources."""
    resources = answer.get("resources") or item.get("resources") or []
    if not isinstance(resources, list):
        return []
    found = [r.get("fulltext_file") for r in resources if isinstance(r, dict)]
    return list(dict.fromkeys(address for address in found if isinstance(address, str) and address))


def _about(item: dict[str, Any]) -> dict[str, Any]:
    """Title, date (ISO or empty) and authors as the catalogue gives them; it knows several spellings of each field."""
    title = item.get("title")
    dates = [item.get("date"), item.get("sort_date"), *_list(item.get("dates"))]
    names = _list(item.get("contributor_names")) or _list(item.get("contributors")) or _list(item.get("contributor"))
    return {
        "title": mended(title.strip()) if isinstance(title, str) else "",
        "date": next((d for d in (iso_date(x) for x in dates if isinstance(x, str)) if d), ""),
        "authors": [_PART.sub("", mended(name.strip())) for name in names if isinstance(name, str) and name.strip()],
    }


def _list(value: Any) -> list[Any]:
    """A field that is a list of texts, a list of {text: link}, or one text."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        return []
    return [entry for x in value for entry in (x.keys() if isinstance(x, dict) else [x])]


# ---- full texts ----


def _text(snapshot: Snapshot, record: Fetched) -> str:
    data = snapshot.data(record)
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        return read_format(data, name=record.url, content_type=record.content_type)[0].text
    value = parse_json(data, where=record.url, mend=snapshot.command)
    text = "\n\n".join(_pages(value))
    if not text.strip():
        raise FoundryError(
            f"the JSON holds no text under any of {', '.join(_TEXT_FIELDS)}",
            where=record.url,
            mend=f"see what the address shows; take `{record.facts.get('item')}` out by `exclude` if it has no text",
        )
    return whole_text(text, where=record.url, mend=snapshot.command)


def _pages(value: Any) -> Iterator[str]:
    """Texts of JSON that holds one, or one for each segment."""
    if isinstance(value, list):
        for part in value:
            yield from _pages(part)
    elif isinstance(value, dict):
        own = next((value[f] for f in _TEXT_FIELDS if isinstance(value.get(f), str)), None)
        if own is not None:
            yield own
        else:
            for part in value.values():
                if isinstance(part, dict | list):
                    yield from _pages(part)


def _connector(place: Place) -> LocItems:
    connector = place.manifest.connector
    assert isinstance(connector, LocItems)
    return connector
