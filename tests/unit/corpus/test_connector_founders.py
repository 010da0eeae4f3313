"""Founders Online: its answers and its list as it gives them, own-written."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from foundry_pipeline.errors import DeclarationError, FoundryError
from tests.unit.corpus.web import Web, states

MADISON, JEFFERSON = "Madison, James", "Jefferson, Thomas"


def record(identifier: str, authors: list[str] | None = None, date: str | None = "1787-10-24", **more):
    return {
        "title": f"A letter, {identifier}",
        "permalink": f"https://founders.archives.gov/documents/{identifier}",
        "project": f"{identifier.split('/')[0]} Papers",
        "authors": [MADISON] if authors is None else authors,
        "recipients": [JEFFERSON],
        "date-from": date,
        "date-to": date,
        **more,
    }


def put(net: Web, entry: dict, content: str = "Dear Sir,\n\nThe harbour is as it was.\n") -> None:
    identifier = entry["permalink"].split("/documents/")[1]
    answer = {k: v for k, v in entry.items() if k != "project"}
    net.site.json(f"/API/docdata/{identifier}", {**answer, "content": content}, etag=f'"{identifier}"')


def founders(net: Web, **told):
    return net.manifest({"kind": "founders", "base": net.site.url(""), "author_names": [MADISON], **told})


def listed(net: Web, *entries: dict) -> None:
    net.site.json("/Metadata/founders-online-metadata.json", list(entries))


def test_documents_by_id(net):
    put(net, record("Madison/01-10-02-0178"), "Dear Sir,\n\nMy last was of the 6th.[1]\n")
    manifest = founders(net, documents=["Madison/01-10-02-0178"])
    assert states(net.refresh(manifest)) == {"Madison/01-10-02-0178": "new"}
    (found,) = net.read(manifest)
    assert (found.document_id, found.date, found.role) == ("Madison-01-10-02-0178", "1787-10-24", "primary")
    assert found.raw == "Dear Sir,\n\nMy last was of the 6th.[1]\n"
    assert found.url == "https://founders.archives.gov/documents/Madison/01-10-02-0178"
    assert net.refresh(manifest).requests == 1
    assert net.site.asked() == [200, 304]


def test_the_list_selects(net):
    entries = [
        record("Madison/01-10-02-0001", date="1787-04-30"),
        record("Madison/01-10-02-0002", date="1787-05-01"),
        record("Jefferson/01-12-02-0003", date="1788-01-02"),
        record("Madison/01-10-02-0004", [JEFFERSON], "1787-06-01", recipients=[MADISON]),
        record("Madison/01-10-02-0005", [], None),
        record("Madison/01-10-02-0006", date="1788", **{"date-to": "1788-12-31"}),
        record("Madison/01-10-02-0007", date="1789-01-01"),
    ]
    listed(net, *entries)
    for entry in entries:
        put(net, entry)
    select = {"authors": [MADISON], "date_from": "1787-05-01", "date_to": "1788-12-31"}
    manifest = founders(net, select=select)
    report = net.refresh(manifest)
    assert sorted(states(report)) == ["Jefferson/01-12-02-0003", "Madison/01-10-02-0002", "Madison/01-10-02-0006"]
    assert report.requests == 4
    assert [d.date for d in net.read(manifest)] == ["1787-05-01", "1788", "1788-01-02"]
    few = founders(net, select={**select, "at_most": 1})
    assert net.refresh(few).counts == {
        "new": 0,
        "changed": 0,
        "unchanged": 1,
        "vanished": 0,
        "left out": 2,
        "failed": 0,
    }
    without = founders(net, select={**select, "exclude": ["Jefferson/01-12-02-0003"]})
    assert len(net.refresh(without).outcomes) == 2
    assert "no record of the list" in str(net.refresh(founders(net, select={"authors": ["Madisson, James"]})).error)


def test_authors_are_kept_apart(net):
    entries = [
        record("Madison/01-01-02-0001"),
        record("Madison/01-01-02-0002", [MADISON, JEFFERSON]),
        record("Madison/01-01-02-0003", [JEFFERSON]),
        record("Madison/01-01-02-0004", []),
        record("Madison/01-01-02-0005", ["Madison, James, Sr."]),
    ]
    listed(net, *entries)
    for entry in entries:
        put(net, entry)
    manifest = founders(net, select={"projects": ["Madison Papers"]})
    net.refresh(manifest)
    told = {d.document_id[-1]: (d.author, d.role) for d in net.read(manifest)}
    assert told == {
        "1": ("James Madison", "primary"),
        "2": (f"{MADISON}; {JEFFERSON}", "joint"),
        "3": (JEFFERSON, "control"),
        "4": ("unknown", "joint"),
        "5": ("Madison, James, Sr.", "control"),
    }


def test_a_date_that_is_null(net):
    put(net, record("Madison/01-01-02-0001", date=None, **{"date-to": "1790-02-03"}))
    put(net, record("Madison/01-01-02-0002", date=None))
    ids = ["Madison/01-01-02-0001", "Madison/01-01-02-0002"]
    manifest = founders(net, documents=ids)
    net.refresh(manifest)
    with pytest.raises(DeclarationError, match=r"no date for `Madison/01-01-02-0002`") as refused:
        net.read(manifest)
    assert "undated: skip" in refused.value.mend
    asked = len(net.site.asked())
    dated = founders(net, documents=ids, dates={"Madison/01-01-02-0002": "1790"})
    assert [d.date for d in net.read(dated)] == ["1790", "1790-02-03"]
    assert len(net.read(founders(net, documents=ids, undated="skip"))) == 1
    assert len(net.site.asked()) == asked  # a fact that is added later is nothing to ask for again


def test_an_empty_202_is_the_firewall(net):
    listed(net, record("Madison/01-01-02-0001"))
    manifest = founders(net, select={"authors": [MADISON]})
    net.site.fail(
        "/Metadata/founders-online-metadata.json", {"status": 202, "headers": {"x-amzn-waf-action": "challenge"}}
    )
    report = net.refresh(manifest)
    assert "check for people" in str(report.error)
    assert "browser" in report.error.mend
    assert report.requests == 1


def test_list_and_answers_saved_with_a_browser(net):
    entry = record("Madison/01-01-02-0001")
    (net.base / "list.json").write_text(json.dumps([entry]))
    put(net, entry)
    manifest = founders(net, select={"authors": [MADISON]}, metadata="file:list.json")
    assert states(net.refresh(manifest)) == {"Madison/01-01-02-0001": "new"}
    folder = net.base / "answers" / "Madison"
    folder.mkdir(parents=True)
    for name, authors in (("01-01-02-0001", [MADISON]), ("01-01-02-0009", [JEFFERSON])):
        answer = {**record(f"Madison/{name}", authors), "content": "Dear Sir,"}
        (folder / f"{name}.json").write_text(json.dumps(answer))
    asked = len(net.site.asked())
    saved = founders(net, select={"authors": [MADISON], "projects": ["Madison Papers"]}, answers="answers")
    assert [d.document_id for d in net.read(saved)] == ["Madison-01-01-02-0001"]
    assert net.fingerprint(saved) == net.fingerprint(saved)
    assert len(net.site.asked()) == asked


def test_a_letter_that_is_listed_and_not_there(net):
    entries = [record("Madison/01-01-02-0001"), record("Madison/01-01-02-0002")]
    listed(net, *entries)
    put(net, entries[0])
    manifest = founders(net, select={"authors": [MADISON]})
    report = net.refresh(manifest)
    assert states(report) == {"Madison/01-01-02-0001": "new", "Madison/01-01-02-0002": "left out"}
    assert not report.failed
    assert len(net.read(manifest)) == 1


def test_a_letter_that_is_no_longer_listed_is_kept_and_marked(net):
    entries = [record("Madison/01-01-02-0001"), record("Madison/01-01-02-0002")]
    listed(net, *entries)
    for entry in entries:
        put(net, entry)
    manifest = founders(net, select={"authors": [MADISON]})
    net.refresh(manifest)
    before = net.fingerprint(manifest)
    listed(net, entries[0])
    report = net.refresh(manifest)
    assert states(report) == {"Madison/01-01-02-0001": "unchanged", "Madison/01-01-02-0002": "vanished"}
    assert len(net.read(manifest)) == 2
    assert net.fingerprint(manifest) == before


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("[]", "no `content`"),
        ('{"title": "x"}', "no `content`"),
        ('{"content": "x", "authors": [3]}', "no list of names"),
        ('{"content": "x", "title": {}}', "no text but dict"),
        ('{"content": "half \\ud800 of it", "date-from": "1787"}', "half of a character"),
        ("[" * 100_000, "not JSON"),
        ('{"content": ', "not JSON"),
    ],
)
def test_a_damaged_answer_is_named(net, body, said):
    net.site.put("/API/docdata/Madison/01-01-02-0001", body, content_type="application/json")
    manifest = founders(net, documents=["Madison/01-01-02-0001"])
    net.refresh(manifest)
    with pytest.raises(FoundryError, match=said) as refused:
        net.read(manifest)
    assert "Madison/01-01-02-0001" in refused.value.where


@pytest.mark.parametrize(
    "permalink", ["https://x.org/", "https://x.org/documents/../../etc/passwd", "https://x.org/documents/a b"]
)
def test_a_list_cannot_lead_astray(net, permalink):
    listed(net, {**record("Madison/1"), "permalink": permalink})
    report = net.refresh(founders(net, select={"authors": [MADISON]}))
    assert "without an id" in str(report.error)
    assert report.requests == 1


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"documents": ["Madison/1"], "select": {"authors": [MADISON]}},
        {"select": {}},
        {"documents": ["../secrets"]},
        {"documents": ["Madison/01-01/../.."]},
        {"documents": ["Madison/1"], "fetch": {"requests_per_second": 11}},
    ],
    ids=str,
)
def test_declarations_that_cannot_be(net, told):
    with pytest.raises(ValidationError):
        founders(net, **told)
