"""Project Gutenberg over HTTP: a mirror's folders, the page for robots, zip files, and what is never asked for."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from foundry_pipeline.corpus.connectors import read_all
from foundry_pipeline.corpus.connectors.gutenberg import book_folder, usual_names
from foundry_pipeline.declarations.sources import SourceManifest
from foundry_pipeline.errors import DeclarationError, FoundryError
from tests.unit.corpus.gutenberg_sample import Edition, author, body, gutenberg_file, paragraph
from tests.unit.corpus.web import Web, states

FEDERALIST = {
    "heading": r"FEDERALIST No\. (?P<number>\d+)",
    "attributions": {
        "HAMILTON": "Alexander Hamilton",
        "MADISON": "James Madison",
        "JAY": "John Jay",
        "MADISON, with HAMILTON": {"author": "James Madison and Alexander Hamilton", "role": "joint"},
    },
    "salutation": "To the People of the State of New York:",
    "signature": "PUBLIUS",
    "expect": 85,
}


def single() -> str:
    import random

    return gutenberg_file("\n\n".join(paragraph(random.Random(n)) for n in range(4)))


def packed(name: str, text: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return out.getvalue()


def book(net: Web, **told):
    return net.manifest({"kind": "gutenberg", "book": 18, "date": "1788-05-28", **told})


def test_where_a_mirror_keeps_a_book():
    assert [book_folder(n) for n in (7, 18, 1404, 41095)] == ["0/7", "1/18", "1/4/0/1404", "4/1/0/9/41095"]
    assert usual_names(18)[0] == "18-0.txt"


def test_85_papers_from_a_mirror(net):
    """One paper is printed twice; the joint ones are kept apart, and every other's author is his own."""
    text = gutenberg_file(body(Edition(contents=True, note="after")))
    net.site.put("/mirror/1/18/18.txt", text.replace("\n", "\r\n"), etag='"1"')
    manifest = book(net, mirror=net.site.url("/mirror"), collection=FEDERALIST)
    report = net.refresh(manifest)
    assert states(report) == {"pg18": "new"}
    assert report.requests == 2  # 18-0.txt is not there, 18.txt is
    documents = net.read(manifest)
    assert len(documents) == 85
    found = {int(d.document_id): d for d in documents}
    assert {n: d.author for n, d in found.items()} == {n: author(n) for n in range(1, 86)}
    assert {d.role for d in documents} == {"primary", "control", "joint"}
    assert [n for n, d in found.items() if d.role == "joint"] == [18, 19, 20]
    assert all(d.author == "James Madison" for d in documents if d.role == "primary")
    variants = [d for d in read_all(manifest, base=net.base, snapshots=net.snapshots) if d.variant_of]
    assert [(v.document_id, v.variant_of) for v in variants] == [("70_v2", "70")]
    assert not any("Gutenberg" in d.raw for d in documents)
    again = net.refresh(manifest)
    assert (again.requests, states(again)) == (1, {"pg18": "unchanged"})


def test_a_zip_on_a_mirror(net):
    net.site.put("/mirror/1/18/18.zip", packed("18.txt", single()), content_type="application/zip")
    manifest = book(net, mirror=net.site.url("/mirror"))
    net.refresh(manifest)
    assert net.read(manifest)[0].document_id == "pg18"


def harvest_page(links: list[str], following: str = "") -> str:
    rows = "".join(f'<p><a href="{link}">{link}</a></p>\n' for link in links)
    more = f'<p><a href="{following}">Next Page</a></p>' if following else ""
    return f'<?xml version="1.0"?><!DOCTYPE html><html><body>\n{rows}{more}</body></html>'


def test_the_page_for_robots_leads_to_a_mirror(net):
    first = "/robot/harvest?filetypes[]=txt&langs[]=en"
    second = "/robot/harvest?offset=2&filetypes[]=txt&langs[]=en"
    zips = [net.site.url(p) for p in ("/1/18/18-8.zip", "/1/18/18-0.zip", "/1/118/118.zip")]
    net.site.put(
        first, harvest_page(zips[2:], "harvest?offset=2&amp;filetypes[]=txt&amp;langs[]=en"), content_type="text/html"
    )
    net.site.put(second, harvest_page(zips[:2]), content_type="text/html")
    net.site.put("/1/18/18-0.zip", packed("18-0.txt", single()), etag='"1"', content_type="application/zip")
    manifest = book(net, harvest=net.site.url(first))
    report = net.refresh(manifest)
    assert states(report) == {"pg18": "new"}, report.error
    assert [e["path"] for e in net.site.log()] == [first, second, "/1/18/18-0.zip"]
    assert net.read(manifest)[0].raw
    # Where it lies is known now: one request, not a walk through the pages.
    assert net.refresh(manifest).requests == 1
    other = book(net, harvest=net.site.url(first), book=999)
    assert "on none of the 2 harvest pages" in str(net.refresh(other).error)


def test_a_page_for_robots_may_not_lead_anywhere(net):
    path = "/robot/harvest?filetypes[]=txt"
    net.site.put(path, harvest_page(["http://169.254.169.254/18.zip"]), content_type="text/html")
    report = net.refresh(book(net, harvest=net.site.url(path)))
    assert "no declared mirror" in report.outcomes[0].note
    assert report.requests == 1


def test_the_main_site_is_asked_for_nothing_else(net):
    manifest = book(net, mirror="https://www.gutenberg.org/files")
    report = net.refresh(manifest)
    assert "main site of Project Gutenberg" in report.outcomes[0].note
    assert report.requests == 0
    with pytest.raises(ValidationError, match="/robot/harvest"):
        book(net, harvest="https://www.gutenberg.org/ebooks/18")


def test_the_two_seconds_of_the_site_are_the_default():
    from foundry_pipeline.declarations.network import GutenbergText

    declared = GutenbergText(kind="gutenberg", book=18, mirror="https://aleph.pglaf.org", date="1788")
    assert declared.fetch.requests_per_second == 0.5


def test_a_file_the_user_has_is_not_asked_for(net):
    (net.base / "pg18.txt").write_text(single())
    manifest = book(net, path="pg18.txt")
    before = net.fingerprint(manifest)
    (found,) = net.read(manifest)
    assert found.document_id == "pg18"
    assert "Produced by" not in found.raw
    (net.base / "pg18.txt").write_text(single().replace(" of ", " off "))
    assert net.fingerprint(manifest) != before
    (net.base / "pg18.txt").unlink()
    with pytest.raises(FoundryError, match="cannot be read"):
        net.read(manifest)
    assert net.site.asked() == []


def test_another_book_is_told_from_the_one_asked_for(net):
    (net.base / "f.txt").write_text(single())
    with pytest.raises(DeclarationError, match="the file is ebook 18"):
        net.read(book(net, path="f.txt", book=19))


def test_a_file_without_marks_is_refused(net):
    net.site.put("/mirror/1/18/18-0.txt", "No mark of anybody.\n\n" * 30)
    manifest = book(net, mirror=net.site.url("/mirror"))
    net.refresh(manifest)
    with pytest.raises(FoundryError, match="no marker of Project Gutenberg"):
        net.read(manifest)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"mirror": "https://a.org", "path": "x"},
        {"mirror": "https://a.org", "file": "../x"},
        {"path": "x", "date": ""},
    ],
    ids=str,
)
def test_declarations_that_cannot_be(net, told):
    with pytest.raises(ValidationError):
        book(net, **told)


@pytest.mark.parametrize("style", ["arabic", "roman"])
def test_the_declaration_that_is_shipped_for_the_federalist(net, style):
    """Its rule, on a generated file in either of the two editions' forms; the address is the test's."""
    path = Path(__file__).parents[3] / "sources/madison/manifests/available/federalist.yaml"
    told = yaml.safe_load(path.read_text())
    text = gutenberg_file(body(Edition(style=style, note="before"))).replace("printings of", "versions of")
    (net.base / "f.txt").write_text(text.replace("EBOOK 18", "EBOOK 1404").replace("#18", "#1404"))
    told["connector"] = {**told["connector"], "path": "f.txt"}
    del told["connector"]["mirror"]
    manifest = SourceManifest.model_validate(told)
    documents = net.read(manifest)
    assert len(documents) == 85
    own = {int(d.document_id.removeprefix("federalist_")) for d in documents if d.role == "primary"}
    assert own == {10, 14, *range(37, 59), 62, 63}
    assert not any("slightly different" in d.raw for d in documents)


def test_the_other_declarations_that_are_shipped():
    folder = Path(__file__).parents[3] / "sources/madison/manifests/available"
    assert {p.stem for p in folder.glob("*.yaml")} == {
        SourceManifest.model_validate(yaml.safe_load(p.read_text())).source for p in folder.glob("*.yaml")
    }
