"""Files of pairs as people write them: every accepted form is read, every other refused by name and place."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.pairs.check import check_pairs, visible
from foundry_pipeline.pairs.conversations import SIDES
from foundry_pipeline.pairs.filters import RULES, Unknown
from foundry_pipeline.pairs.pair_files import normal_form, read_pair_file, write_kept

USER, SAID = {"role": "user", "content": "Was it so?"}, {"role": "assistant", "content": "It was."}
OTHER = {"role": "assistant", "content": "No."}
ROW = {"prompt": "Was it so?", "chosen": "It was.", "rejected": "No."}
FORMS: dict[str, dict[str, Any]] = {
    "texts": ROW,
    "conversations": {"prompt": [USER], "chosen": [SAID], "rejected": [OTHER]},
    "implicit prompt": {"chosen": [USER, SAID], "rejected": [USER, OTHER]},
    "with a system message": {
        "prompt": [{"role": "system", "content": "Be brief."}, USER],
        "chosen": [SAID],
        "rejected": [OTHER],
    },
    "mixed": {"prompt": "Was it so?", "chosen": [SAID], "rejected": [OTHER]},
}


def jsonl(folder: Path, *rows: Any) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n", encoding="utf-8")
    return path


def parquet(folder: Path, rows: list[dict[str, Any]], **kinds: Any) -> Path:
    path = folder / "pairs.parquet"
    pl.DataFrame(rows, schema_overrides=kinds).write_parquet(path)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_alike_from_both_formats(form: str, tmp_path: Path) -> None:
    for path in (jsonl(tmp_path, FORMS[form]), parquet(tmp_path, [FORMS[form]])):
        read = read_pair_file(path)
        assert read.pairs.select(SIDES).row(0, named=True) == ROW, path
        assert read.kind == path.suffix[1:]


def test_the_format_is_known_by_content_and_not_by_name(tmp_path: Path) -> None:
    path = parquet(tmp_path, [ROW]).rename(tmp_path / "pairs.jsonl")
    assert read_pair_file(path).kind == "parquet"


def test_places_are_lines_of_the_file_blank_ones_counted(tmp_path: Path) -> None:
    read = read_pair_file(jsonl(tmp_path, ROW, "", "   ", ROW))
    assert [read.place(0), read.place(1)] == ["line 1", "line 4"]


def test_other_columns_may_hold_anything(tmp_path: Path) -> None:
    odd = {"score": float("nan"), "meta": {"a": [{"b": None}]}, "prompt_id": 7, "finish_reason": ["x"]}
    for path in (jsonl(tmp_path, {**ROW, **odd, "more": [1, {"c": 2}]}), parquet(tmp_path, [{**ROW, **odd}])):
        assert read_pair_file(path).pairs.row(0, named=True) == {**ROW, "finish_reason": None, "prompt_id": None}


def test_texts_are_read_in_one_normal_form_and_what_changed_is_counted(tmp_path: Path) -> None:
    row = {"prompt": "\ufeff".strip("\ufeff") + " Was it so?\r\n", "chosen": "cafe\u0301", "rejected": "a\rb"}
    read = read_pair_file(jsonl(tmp_path, row))
    assert read.pairs.select(SIDES).row(0) == ("Was it so?", "café", "a\nb")
    assert read.changed == {"line ends": 2, "outer white space": 1, "accents composed": 1}


@given(st.text(), st.text(), st.text())
def test_the_normal_form_is_normal(prompt: str, chosen: str, rejected: str) -> None:
    frame = pl.DataFrame({"prompt": [prompt], "chosen": [chosen], "rejected": [rejected]})
    once = frame.with_columns(normal_form(frame[s]) for s in SIDES)
    assert once.equals(once.with_columns(normal_form(once[s]) for s in SIDES))
    assert all(unicodedata.is_normalized("NFC", t) for t in once.row(0))
    assert "\r" not in "".join(once.row(0))


@given(st.dictionaries(st.sampled_from([*SIDES, "x"]), st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "z"]), inner),
    max_leaves=8,
)))  # fmt: skip
def test_any_json_object_is_read_or_refused_by_its_line(tmp_path_factory: pytest.TempPathFactory, row: Any) -> None:
    path = jsonl(tmp_path_factory.mktemp("any"), row)
    refused = None
    try:
        read = read_pair_file(path)
    except FoundryError as error:
        refused = error
    if refused is None:
        assert read.pairs.height == 1
    else:
        assert "line 1: " in str(refused)
        assert refused.mend


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ('{"prompt": "a"', "line 2: not JSON: Expecting ',' delimiter, column 15"),
        ("[" * 100_000, "line 2: not JSON: nested too deep"),
        ("[1, 2]", "line 2: a list, not an object"),
        ('{"prompt": "a", "chosen": "b"}', "line 2: no rejected"),
        ('{"chosen": "b", "rejected": "c"}', "line 2: no prompt"),
        ('{"prompt": 1, "chosen": "b", "rejected": {}}', "line 2: prompt is a number"),
        ('{"prompt": "a", "chosen": ["b"], "rejected": "c"}', "line 2: chosen has a message without `content`"),
    ],
)
def test_a_bad_line_is_named(row: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(FoundryError) as raised:
        read_pair_file(jsonl(tmp_path, ROW, row))
    assert what in str(raised.value)
    assert raised.value.mend


def test_many_bad_lines_are_counted(tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="and 15 more"):
        read_pair_file(jsonl(tmp_path, *["{"] * 20))


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path, ROW)
    path.write_bytes(path.read_bytes() + b'{"prompt": "\xff"}\n')
    with pytest.raises(FoundryError, match="line 2: not UTF-8 at byte 13"):
        read_pair_file(path)


def test_a_byte_order_mark_and_half_a_surrogate_pair_do_no_harm(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {**ROW, "chosen": "half \ud800"})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_pair_file(path).pairs["chosen"].to_list() == ["half \ufffd"]


@pytest.mark.parametrize("damage", [lambda b: b[:200], lambda b: b"PAR1" + b[4:300][::-1], lambda b: b"PAR1"])
def test_a_damaged_parquet_file_is_refused(damage: Any, tmp_path: Path) -> None:
    path = parquet(tmp_path, [ROW])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FoundryError, match="not a whole Parquet file"):
        read_pair_file(path)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([{"prompt": "a", "x": 1}], "no column chosen and no column rejected"),
        ([{"chosen": "a", "rejected": "b"}], "no column prompt"),
        ([{**ROW, "prompt": 1}], "column prompt is of type Int64"),
        ([{**ROW, "chosen": b"a"}], "column chosen is of type Binary"),
        ([{**ROW, "chosen": [1, 2]}], "row 1: chosen has a message without `content`"),
    ],
)
def test_columns_of_another_shape_are_named(rows: list[dict[str, Any]], what: str, tmp_path: Path) -> None:
    with pytest.raises(FoundryError) as raised:
        read_pair_file(parquet(tmp_path, rows))
    assert what in str(raised.value)


def test_a_conversation_that_lacks_a_side_is_a_pair_that_lacks_it(tmp_path: Path) -> None:
    rows = [FORMS["implicit prompt"], {"chosen": None, "rejected": [USER, OTHER]}]
    for path in (jsonl(tmp_path, *rows), parquet(tmp_path, rows)):
        assert read_pair_file(path).pairs.select(SIDES).rows() == [tuple(ROW.values()), (None, None, None)]


def test_categories_and_all_null_columns_are_texts(tmp_path: Path) -> None:
    path = parquet(tmp_path, [{**ROW, "rejected": None}], chosen=pl.Categorical)
    assert read_pair_file(path).pairs.select(SIDES).row(0) == ("Was it so?", "It was.", None)


@pytest.mark.parametrize("content", [b"", b"  \n\n"])
def test_an_empty_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    with pytest.raises(FoundryError, match="holds no pair"):
        read_pair_file(path)


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
@pytest.mark.parametrize("source", ["jsonl", "parquet"])
def test_kept_rows_are_written_as_they_stood(source: str, ending: str, tmp_path: Path) -> None:
    rows = [{**ROW, "prompt": f" {i}\r\n", "other": {"n": i}} for i in range(4)]
    path = jsonl(tmp_path, *rows) if source == "jsonl" else parquet(tmp_path, rows)
    out = tmp_path / f"kept{ending}"
    write_kept(read_pair_file(path), pl.Series([True, False, False, True]), out)
    got = pl.read_parquet(out) if ending == ".parquet" else pl.read_ndjson(out)
    assert got.to_dicts() == [rows[0], rows[3]]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, out.name])


def test_rows_of_different_kinds_are_not_made_alike(tmp_path: Path) -> None:
    read = read_pair_file(jsonl(tmp_path, FORMS["texts"], FORMS["conversations"]))
    with pytest.raises(FoundryError, match="different kinds of value"):
        write_kept(read, pl.Series([True, True]), tmp_path / "kept.parquet")
    write_kept(read, pl.Series([True, True]), tmp_path / "kept.jsonl")
    assert (tmp_path / "kept.jsonl").read_bytes() == read.path.read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_the_file_itself_is_never_replaced(tmp_path: Path) -> None:
    path = jsonl(tmp_path, ROW)
    before = path.read_bytes()
    for out, what in (
        (path, "replace the file"),
        (tmp_path / "x.csv", "cannot write"),
        (tmp_path / "no" / "x.jsonl", "cannot be written"),
    ):
        with pytest.raises(FoundryError, match=what):
            write_kept(read_pair_file(path), pl.Series([True]), out)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@given(st.text())
def test_what_is_shown_is_one_printable_line(text: str) -> None:
    assert visible(text).isprintable()


def test_the_report_says_why_each_row_goes_and_which_rules_were_not_asked(
    make_pair, filters, character, tmp_path
) -> None:
    sound = make_pair().select(SIDES).row(0, named=True)
    rows = [sound, {**sound, "rejected": None}, {**sound, "prompt": "\x1b[31m[bold]Red\u202e"}, sound]
    read = read_pair_file(jsonl(tmp_path, *rows))
    report, kept = check_pairs(read, filters, character=character, unknown=Unknown(("Why?",), None), absent="not built")
    assert kept.to_list() == [True, False, False, False]
    assert (report["rows"], report["kept"], report["dropped"]) == (4, 1, 3)
    shown = [(r["place"], r["rule"]) for r in report["dropped_rows"]]
    assert shown == [("line 2", "empty"), ("line 3", "control_characters"), ("line 4", "exact_duplicate")]
    assert report["dropped_rows"][1]["prompt"] == "\\x1b[31m[bold]Red\\u202e"
    assert report["dropped_rows"][2]["reason"].endswith("line 1")
    assert report["rules"]["empty"] == {"dropped": 1, "fired": 1}
    assert set(report["rules"]) | set(report["not_applied"]) == set(RULES)
    assert report["not_applied"]["held_out_overlap"] == "not built"
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_without_a_character_only_the_rules_on_texts_apply(make_pair, filters, tmp_path) -> None:
    swapped = make_pair().select(pl.col("prompt"), chosen="rejected", rejected="chosen").row(0, named=True)
    read = read_pair_file(jsonl(tmp_path, swapped))
    report, kept = check_pairs(read, filters, character=None, unknown=Unknown(None, None))
    assert kept.to_list() == [True]
    assert {"swapped_sides", "weak_voice_contrast", "anachronism_in_chosen", "suite_overlap"} <= set(
        report["not_applied"]
    )
