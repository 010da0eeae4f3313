"""The Library of Congress: search pages, items and full texts as its JSON gives them, own-written."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from foundry_pipeline.corpus.pace import Refused
from foundry_pipeline.errors import DeclarationError, FoundryError
from tests.unit.corpus.web import Web, states

MADISON = "Madison, James, 1751-1836"


def item(
    net: Web, name: str, *texts: str, date: str | None = "1787-09-17", names: list[str] | None = None, **more
) -> dict:
    """An item's answer; its full texts are paths on the site."""
    about = {
        "title": f"James Madison, {name}",
        "contributor_names": [f"{MADISON}, author"] if names is None else names,
        **more,
    }
    if date is not None:
        about["date"] = date
    resources = [{"url": f"/resource/{name}", "fulltext_file": net.site.url(t)} for t in texts] or [{"image": "x.jpg"}]
    answer = {"item": about, "resources": resources}
    net.site.json(f"/item/{name}/?fo=json", answer)
    return answer


def loc(net: Web, **told):
    return net.manifest({"kind": "loc", "base": net.site.url(""), "author_names": [MADISON], **told})


def page(results: list[dict], following: str | None = None, of: int | None = None) -> dict:
    return {
        "results": results,
        "pagination": {"next": following, "of": len(results) if of is None else of, "perpage": 2},
    }


def test_text_and_json_and_several_parts(net):
    net.site.put("/text/a.txt", "Sir, the first page.")
    net.site.json(
        "/text/b?full_text=1",
        {"/service/mss/1.xml": {"full_text": "One."}, "/service/mss/2.xml": {"full_text": "Two."}},
    )
    net.site.json("/text/c", {"full_text": "Alone."})
    item(net, "mjm1", "/text/a.txt")
    item(net, "mjm2", "/text/b?full_text=1", "/text/c", date="1788")
    manifest = loc(net, items=["mjm1", "mjm2"])
    report = net.refresh(manifest)
    assert states(report) == {"mjm1": "new", "mjm2 part 1": "new", "mjm2 part 2": "new"}
    assert report.requests == 5
    found = {d.document_id: d for d in net.read(manifest)}
    assert found["mjm1"].raw == "Sir, the first page."
    assert (found["mjm2"].raw, found["mjm2"].date) == ("One.\n\nTwo.\n\nAlone.", "1788")
    assert found["mjm1"].url == net.site.url("/item/mjm1/")
    assert {(d.author, d.role) for d in found.values()} == {("James Madison", "primary")}


def test_a_search_is_read_page_by_page(net):
    for name in ("mjm1", "mjm2", "mjm3"):
        net.site.put(f"/text/{name}.txt", f"Text of {name}.")
        item(net, name, f"/text/{name}.txt")
    item(net, "mjm4")
    results = [{"id": f"http://www.loc.gov/item/mjm{n}/", "title": "x"} for n in range(1, 5)]
    exhibit = {"id": "https://www.loc.gov/exhibits/madison/", "title": "An exhibit"}
    # The third result brings its own resources, so its item need not be asked for.
    results[2] |= {
        "resources": [{"fulltext_file": "/text/mjm3.txt"}],
        "contributor_names": [MADISON],
        "date": "1789-03-04",
    }
    first = "/collections/papers/?dates=1787/1789&fo=json"
    net.site.json(
        first,
        page(results[:2], net.site.url("/collections/papers/?dates=1787/1789&sp=2")),
    )
    net.site.json("/collections/papers/?dates=1787/1789&sp=2&fo=json", page([exhibit, *results[2:]]))
    manifest = loc(net, search="/collections/papers/?dates=1787/1789")
    report = net.refresh(manifest)
    assert report.error is None, report.error
    assert states(report) == {
        "mjm1": "new",
        "mjm2": "new",
        "https://www.loc.gov/exhibits/madison/": "left out",
        "mjm3": "new",
        "mjm4": "left out",
    }
    asked = [e["path"] for e in net.site.log()]
    assert asked[0] == first
    assert "/item/mjm3/?fo=json" not in asked
    assert [d.document_id for d in net.read(manifest)] == ["mjm1", "mjm2", "mjm3"]


def test_pages_that_lead_in_a_circle_end(net):
    net.site.put("/t.txt", "Text.")
    item(net, "mjm1", "/t.txt")
    net.site.json("/search/?q=a&fo=json", page([{"id": "/item/mjm1/"}], "/search/?q=a"))
    assert not net.refresh(loc(net, search="/search/?q=a")).failed
    assert net.site.asked("/search/?q=a&fo=json") == [200]


def test_more_than_was_bargained_for_is_an_error(net):
    net.site.json("/search/?q=a&fo=json", page([{"id": "/item/mjm1/"}], of=91_000))
    report = net.refresh(loc(net, search="/search/?q=a"))
    assert "finds 91,000 items" in str(report.error)
    assert report.requests == 1


def test_who_wrote_it(net):
    net.site.put("/t.txt", "Text.")
    item(net, "own", "/t.txt", names=["Madison, James, 1751-1836."])
    item(net, "joint", "/t.txt", names=[f"{MADISON}, correspondent", "Jefferson, Thomas, 1743-1826"])
    item(net, "other", "/t.txt", names=["Jefferson, Thomas, 1743-1826"])
    item(net, "nobody", "/t.txt", names=[])
    item(net, "linked", "/t.txt", names=[], contributors=[{"madison, james, 1751-1836": "https://www.loc.gov/x"}])
    item(net, "told", "/t.txt", names=[])
    names = ["own", "joint", "other", "nobody", "linked", "told"]
    manifest = loc(net, items=names, facts={"told": {"author": "James Madison", "date": "1800-01-02"}})
    net.refresh(manifest)
    roles = {d.document_id: d.role for d in net.read(manifest)}
    assert roles == {
        "own": "primary",
        "joint": "joint",
        "other": "control",
        "nobody": "joint",
        "linked": "primary",
        "told": "primary",
    }


def test_a_catalogue_without_a_date(net):
    net.site.put("/t.txt", "Text.")
    item(net, "mjm1", "/t.txt", date="undated")
    manifest = loc(net, items=["mjm1"])
    net.refresh(manifest)
    with pytest.raises(DeclarationError, match="no date for `mjm1`"):
        net.read(manifest)
    assert net.read(loc(net, items=["mjm1"], facts={"mjm1": {"date": "1787"}}))[0].date == "1787"


def test_pictures_only(net):
    item(net, "mjm1")
    report = net.refresh(loc(net, items=["mjm1"]))
    assert states(report) == {"mjm1": "failed"}
    assert "pictures only" in report.outcomes[0].note


def test_a_block_is_obeyed(net):
    item(net, "mjm1", "/t.txt")
    manifest = loc(net, items=["mjm1"], fetch={"retries": 1})
    net.site.fail("/item/mjm1/?fo=json", *[{"status": 429}] * 9)
    report = net.refresh(manifest)
    assert isinstance(report.error, Refused)
    assert "is not to be asked before" in str(report.error)
    assert net.refresh(manifest).requests == 0


def test_a_captcha_is_no_text(net):
    net.site.put("/t.txt", "Text.")
    item(net, "mjm1", "/t.txt")
    manifest = loc(net, items=["mjm1"])
    net.refresh(manifest)
    net.site.fail("/t.txt", {"captcha": True})
    report = net.refresh(manifest)
    assert "captcha" in str(report.error)
    assert net.read(manifest)[0].raw == "Text."


def test_a_page_for_people_is_no_text(net):
    net.site.put(
        "/t.txt", "<!doctype html><html><body><h1>Down for repairs</h1></body></html>", content_type="text/html"
    )
    item(net, "mjm1", "/t.txt")
    report = net.refresh(loc(net, items=["mjm1"]))
    assert "a web page came" in report.outcomes[0].note


def test_texts_lie_on_declared_hosts_only(net):
    answer = item(net, "mjm1", "/t.txt")
    answer["resources"][0]["fulltext_file"] = "https://evil.example/t.txt"
    net.site.json("/item/mjm1/?fo=json", answer)
    report = net.refresh(loc(net, items=["mjm1"]))
    assert "neither the Library's nor named" in report.outcomes[0].note
    assert report.requests == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [('{"a": {"b": 1}}', "no text under any of"), ("[", "not JSON"), ("<?xml version='1.0'?><alto/>", "XML")],
)
def test_full_text_in_no_known_form(net, body, said):
    net.site.put("/t", body)
    item(net, "mjm1", "/t")
    manifest = loc(net, items=["mjm1"])
    net.refresh(manifest)
    with pytest.raises(FoundryError, match=said):
        net.read(manifest)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"items": ["a"], "search": "/x"},
        {"items": ["../x"]},
        {"search": "https://x.org/"},
        {"items": ["a"], "base": "https://www.loc.gov", "fetch": {"requests_per_second": 2}},
        {"search": "/newspapers/?q=a", "base": "https://www.loc.gov", "fetch": {"requests_per_second": 0.9}},
    ],
    ids=str,
)
def test_declarations_that_cannot_be(net, told):
    with pytest.raises(ValidationError):
        loc(net, **told)


@pytest.mark.parametrize(
    "address", ["http://[", "http://127.0.0.1:99999/", "javascript:alert(1)", "file:///etc/passwd"]
)
def test_addresses_that_are_none(net, address):
    answer = item(net, "mjm1", "/t.txt")
    answer["resources"][0]["fulltext_file"] = address
    net.site.json("/item/mjm1/?fo=json", answer)
    report = net.refresh(loc(net, items=["mjm1"]))
    assert report.failed
    assert report.requests == 1


def test_half_characters_in_a_catalogue(net):
    net.site.put("/t.txt", "Text.")
    item(net, "mjm1", "/t.txt", title="A half \ud800 of one")
    manifest = loc(net, items=["mjm1"])
    assert not net.refresh(manifest).failed
    assert net.read(manifest)[0].title == "A half ? of one"
