"""The local connector: declared files, whole folders, collections; what each says of itself, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from format_samples import epub, pdf, zipped
from gutenberg_sample import Edition, author, body, gutenberg_file
from test_collections import AUTHORS, HEADING

from foundry_pipeline.corpus.connectors import read_all, read_source, source_fingerprint
from foundry_pipeline.declarations.sources import SourceManifest
from foundry_pipeline.errors import DeclarationError, FoundryError


def manifest(pattern: str = "letter_{stem}", **connector) -> SourceManifest:
    return SourceManifest.model_validate(
        {
            "source": "letters",
            "title": "Letters",
            "author": "James Madison",
            "license": "public domain",
            "document_id": pattern,
            "connector": {"kind": "local", "path": "texts", **connector},
        }
    )


@pytest.fixture
def texts(tmp_path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    return folder


def put(folder: Path, **files: str | bytes) -> None:
    for name, content in files.items():
        path = folder / name.replace("__", ".").replace("_slash_", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_a_folder_taken_whole(texts):
    put(
        texts,
        **{
            "1788-06-01_to-a-friend.txt": "Dear Sir",
            "1789_of-oil.md": "---\ndate: 1789-01-02\ntitle: Of Oil\nauthor: Fisher Ames\n---\n*Oil* is dear.",
            "page.html": "<title>A page</title><meta name=dc.date content=1790-03-04><p>Dear Madam",
            "scan.pdf": pdf([[(72, 700, "Dear Captain,")]], title="To a captain"),
            "book.epub": epub(),
            "sub_slash_1791-01-01.txt": "Deep",
            "documents.csv": "file,title,date,url\nscan.pdf,,1792-05-06,https://example.org/scan\nbook,A Book,1793,\n",
            ".hidden.txt": "hidden",
        },
    )
    found = read_source(manifest(include=["*.*", "**/*.txt"]), base=texts.parent)
    assert [(d.document_id, d.title, d.date, d.author, d.role, d.raw[:12]) for d in found] == [
        ("letter_1788-06-01_to-a-friend", "To a friend", "1788-06-01", "James Madison", "primary", "Dear Sir"),
        ("letter_1789_of-oil", "Of Oil", "1789-01-02", "Fisher Ames", "control", "Oil is dear."),
        ("letter_page", "A page", "1790-03-04", "James Madison", "primary", "Dear Madam"),
        ("letter_sub_1791-01-01", "Letters", "1791-01-01", "James Madison", "primary", "Deep"),
        ("letter_scan", "To a captain", "1792-05-06", "James Madison", "primary", "Dear Captain"),
        ("letter_book", "A Book", "1793", "James Madison", "primary", "The first\n\nT"),
    ]
    assert found[4].url == "https://example.org/scan"
    assert "the file names 'The Keeper' as author" in found[5].remarks


def test_what_the_manifest_says_goes_first(texts):
    put(
        texts,
        **{
            "1788-06-01_x.md": "---\ntitle: Front\n---\nDear Sir",
            "documents.yaml": "1788-06-01_x: {title: Table, date: 1788-07-01}",
        },
    )
    (found,) = read_source(manifest(include=["*.md"]), base=texts.parent)
    assert (found.title, found.date) == ("Table", "1788-07-01")
    told = {"1788-06-01_x": {"title": "Manifest", "role": "joint"}}
    (found,) = read_source(manifest(include=["*.md"], documents=told), base=texts.parent)
    assert (found.title, found.date, found.role) == ("Manifest", "1788-07-01", "joint")


def test_every_undated_file_is_named_with_the_ways_to_date_it(texts):
    put(texts, a__txt="Dear Sir", b__txt="Dear Madam", **{"1788_c.txt": "Dear Captain"})
    with pytest.raises(DeclarationError, match=r"2 texts have no date: .*a\.txt, .*b\.txt") as refused:
        read_source(manifest(include=["*.txt"]), base=texts.parent)
    assert "documents.csv" in refused.value.mend
    assert len(read_source(manifest(include=["*.txt"], date="1787"), base=texts.parent)) == 3


def test_declared_files_of_any_format(texts):
    put(
        texts,
        scan__pdf=pdf([[(72, 700, "Dear Captain,")]]),
        old__txt="caf\xe9".encode("latin-1"),
        README__md="of this folder",
    )
    facts = {"title": "t", "date": "1788-06-01"}
    documents = {"scan": facts, "old": {**facts, "encoding": "windows-1252"}}
    found = read_source(manifest(documents=documents), base=texts.parent)
    assert {d.raw: d.remarks for d in found} == {"Dear Captain,": "1 pages", "café": "read as windows-1252"}
    put(texts, forgotten__pdf=pdf([[(72, 700, "x")]]))
    with pytest.raises(DeclarationError, match=r"forgotten\.pdf .* passed over in silence"):
        read_source(manifest(documents=documents), base=texts.parent)


def test_a_gutenberg_file_is_known_by_its_marks(texts):
    put(texts, keeper__txt=gutenberg_file("The lamp was lit."))
    told = {"keeper": {"title": "t", "date": "1788"}}
    (found,) = read_source(manifest(documents=told), base=texts.parent)
    assert found.raw == "The lamp was lit."
    put(texts, keeper__txt=gutenberg_file("The lamp was lit.").partition("*** END")[0])
    with pytest.raises(FoundryError, match="cut short"):
        read_source(manifest(documents=told), base=texts.parent)
    (whole,) = read_source(manifest(documents=told, format="text"), base=texts.parent)
    assert "START OF" in whole.raw


def test_a_collection_in_one_file(texts):
    """The 85 papers, No. 70 printed twice: 85 documents with their authors, the variant named beside them."""
    put(texts, **{"18.txt": gutenberg_file(body(Edition(contents=True, note="after")))})
    rule = {
        "heading": HEADING,
        "expect": 85,
        "attributions": AUTHORS,
        "signature": "PUBLIUS",
        "salutation": "To the People of the State of New York",
    }
    told = manifest("federalist_{stem}", path="texts/18.txt", collection=rule)
    found = read_source(told, base=texts.parent)
    assert len(found) == 85
    assert {d.document_id: d.author for d in found} == {f"federalist_{n}": author(n) for n in range(1, 86)}
    assert {d.role for d in found if d.author == "James Madison"} == {"primary"}
    assert sum(d.role == "joint" for d in found) == 3
    (variant,) = [d for d in read_all(told, base=texts.parent) if d.variant_of]
    assert (variant.document_id, variant.variant_of) == ("federalist_70_v2", "federalist_70")
    assert variant.remarks.startswith("attributed HAMILTON; printing 2 of `70`, shares")
    assert "85 lines of contents" in found[0].remarks
    assert "licen" not in " ".join(d.raw for d in found).lower()
    dated = manifest("paper_{date}", path="texts/18.txt", collection=rule)
    assert len({d.document_id for d in read_all(dated, base=texts.parent)}) == 86


def test_undated_works_are_all_named(texts):
    put(texts, **{"w.txt": "LETTER 1\n\n" + "One. " * 60 + "\n\n\nLETTER 2\n\n" + "Two. " * 60})
    told = {"heading": r"LETTER (?P<number>\d)"}
    with pytest.raises(DeclarationError, match="2 works have no date: 1, 2"):
        read_source(manifest(path="texts/w.txt", collection=told), base=texts.parent)
    (one, two) = read_source(manifest(path="texts/w.txt", collection=told, date="1788"), base=texts.parent)
    assert (one.title, two.document_id, two.date) == ("Letters, No. 1", "letter_2", "1788")


def test_an_archive_of_letters(texts):
    put(texts, bundle__zip=zipped({"1788-01-01_a.txt": "One", "1788-01-02_b.txt": "Two"}))
    found = read_source(manifest(include=["*.zip"]), base=texts.parent)
    assert [(d.document_id, d.date, d.title) for d in found] == [
        ("letter_bundle_1788-01-01_a", "1788-01-01", "A"),
        ("letter_bundle_1788-01-02_b", "1788-01-02", "B"),
    ]


@pytest.mark.parametrize(
    ("files", "connector", "said"),
    [
        ({"1788_a.txt": "x", "1788_a.md": "y"}, {"include": ["*"]}, r"1788_a\.md and 1788_a\.txt would both be"),
        ({"1788_a.txt": ""}, {"include": ["*"]}, "the file is empty"),
        ({"1788_a.docx": zipped({"[Content_Types].xml": "x"})}, {"include": ["*"]}, "Word or Office"),
        ({"1788_a.txt": "x"}, {"include": ["*.md"]}, r"no file in .* matches '\*\.md'"),
        ({"1788_a.txt": "x" * 2000}, {"include": ["*"], "largest": 1000}, "2,000 bytes, more than 1,000"),
        ({"1788_a.txt": "x", "documents.csv": "name\nx"}, {"include": ["*"]}, "no column `file`"),
        (
            {"1788_a.txt": "x", "documents.csv": "file,date\nb.txt,1788"},
            {"include": ["*"]},
            "names 'b.txt', which is not",
        ),
        ({"1788_a.txt": "x", "documents.csv": "file,date\n1788_a,1,2"}, {"include": ["*"]}, "line 2 has not as many"),
        ({"1788_a.txt": "x", "documents.yaml": "[1, 2]"}, {"include": ["*"]}, "no mapping"),
        ({"1788_a.txt": "x", "documents.yaml": "a: ["}, {"include": ["*"]}, "cannot be read"),
        ({"1788_a.txt": "x", "documents.csv": "file,when\n1788_a,1"}, {"include": ["*"]}, "unknown field `when`"),
        ({"a.txt": "x"}, {"documents": {"a": {"title": "t", "date": "1788", "role": "owner"}}}, "unknown role 'owner'"),
        (
            {"a.txt": "x"},
            {"documents": {"a": {"title": "t", "date": "1788"}, "b": {"title": "t", "date": "1788"}}},
            "no file `b`",
        ),
    ],
)
def test_what_does_not_fit_is_named(texts, files, connector, said):
    put(texts, **files)
    with pytest.raises(FoundryError, match=said) as refused:
        read_source(manifest(**connector), base=texts.parent)
    assert refused.value.where
    assert refused.value.mend


def test_links_pipes_and_locked_files(texts, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("not for this folder")
    (texts / "1788_link.txt").symlink_to(secret)
    told = manifest(include=["*"])
    with pytest.raises(FoundryError, match="a link that leads out of its folder"):
        read_source(told, base=tmp_path)
    (texts / "1788_link.txt").unlink()
    (texts / "1788_link.txt").symlink_to(texts / "1788_link.txt")
    with pytest.raises(FoundryError, match="cannot be read"):
        read_source(told, base=tmp_path)
    (texts / "1788_link.txt").unlink()
    os.mkfifo(texts / "1788_pipe.txt")
    for use in (lambda: read_source(told, base=tmp_path), lambda: source_fingerprint(told, tmp_path)):
        with pytest.raises(FoundryError, match="a pipe, a device or a socket"):
            use()
    (texts / "1788_pipe.txt").unlink()
    put(texts, **{"1788_a.txt": "Dear Sir"})
    (texts / "1788_b.txt").symlink_to(texts / "1788_a.txt")  # inside the folder: a second name is a second document
    assert len(read_source(told, base=tmp_path)) == 2


@pytest.mark.parametrize("pattern", ["../*.txt", "/etc/*", "a/../../b", "", "~/x"])
def test_a_pattern_stays_inside_the_folder(pattern):
    with pytest.raises(ValueError, match="must stay inside"):
        manifest(include=[pattern])


def test_fingerprint_follows_every_byte_and_fact(texts):
    put(texts, **{"1788_a.txt": "Dear Sir", "1789_b.md": "Dear Madam"})
    told = manifest(include=["*.txt", "*.md"])
    seen = {source_fingerprint(told, texts.parent)}
    for name, content in (
        ("1788_a.txt", "Dear Sir,"),
        ("documents.csv", "file,title\n1788_a,New"),
        ("1790_c.txt", "x"),
    ):
        put(texts, **{name: content})
        seen.add(source_fingerprint(told, texts.parent))
    seen.add(source_fingerprint(manifest(include=["*.txt", "*.md"], format="text"), texts.parent))
    assert len(seen) == 5
