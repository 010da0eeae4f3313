"""A file of many works: 85 papers in every way they have been printed, one of them twice."""

from __future__ import annotations

import pytest
from gutenberg_sample import (
    FORMS,
    STYLES,
    Edition,
    author,
    author_line,
    body,
    day,
    gutenberg_file,
    paper,
    title,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from foundry_pipeline.corpus.collections import arabic, split_collection
from foundry_pipeline.corpus.gutenberg import strip_gutenberg
from foundry_pipeline.declarations.collections import Collection
from foundry_pipeline.errors import DeclarationError

HEADING = r"(?:(?:THE )?FEDERALIST\.?\s+)?No\. (?P<number>\d+|[IVXLC]+)\.?"
AUTHORS = {
    "HAMILTON": "Alexander Hamilton",
    "MADISON": "James Madison",
    "JAY": "John Jay",
    "MADISON, with HAMILTON": {"author": "James Madison and Alexander Hamilton", "role": "joint"},
}


def rule(edition: Edition, **changed) -> Collection:
    told = {
        "heading": HEADING,
        "expect": edition.papers,
        "attributions": AUTHORS,
        "salutation": "To the People of the State of New York" if edition.salutation else "",
        "signature": "PUBLIUS" if edition.signature else "",
    }
    return Collection.model_validate({**told, **changed})


def split(text: str, collection: Collection):
    return split_collection(text, collection, author="James Madison", role="primary", where="18.txt")


def flat(text: str) -> list[str]:
    return [" ".join(block.split()) for block in text.split("\n\n")]


editions = st.builds(
    Edition,
    style=st.sampled_from(STYLES),
    contents=st.booleans(),
    preface=st.booleans(),
    tight=st.booleans(),
    salutation=st.booleans(),
    signature=st.booleans(),
    brackets=st.booleans(),
    note=st.sampled_from(("", "before", "after")),
    twice=st.integers(2, 85),
    unsigned=st.sets(st.integers(1, 85), max_size=4).map(tuple),
    seed=st.integers(0, 10_000),
)


@settings(
    max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # shrinking 85 papers takes minutes
@given(editions, st.sampled_from(FORMS), st.sampled_from(["\n", "\r\n"]))
def test_eighty_five_papers(edition, form, ends):
    text = strip_gutenberg(gutenberg_file(body(edition), form).replace("\n", ends), where="18.txt").text
    found = split(text, rule(edition))
    assert [w.number for w in found.works] == [str(n) for n in range(1, 86)]
    for work in found.works:
        number = int(work.number)
        assert (work.author, work.date, work.title) == (author(number), day(number).isoformat(), title(number))
        assert work.role == {"MADISON": "primary", "MADISON, with HAMILTON": "joint"}.get(
            author_line(number), "control"
        )
        assert flat(work.text) == paper(number, edition)[1]
    (variant,) = found.variants
    assert (variant.number, variant.printing) == (str(edition.twice), 2)
    assert flat(variant.text) == paper(edition.twice, edition, printing=2)[1]
    assert 0.5 < variant.alike <= 1
    assert found.counts["variants"] == 1
    assert any(r.startswith(f"{edition.twice} is printed 2 times") for r in found.remarks)


def test_the_preferred_printing_is_the_document():
    edition = Edition()
    found = split(body(edition), rule(edition, works={"70": {"prefer": 2}}))
    assert flat(found.works[69].text) == paper(70, edition, printing=2)[1]
    assert found.variants[0].printing == 1
    with pytest.raises(DeclarationError, match="printing 3 of work 70 is preferred, there are 2"):
        split(body(edition), rule(edition, works={"70": {"prefer": 3}}))


def test_declared_facts_go_before_printed_ones():
    edition = Edition(unattributed=(49, 50))
    works = {"49-57": {"author": "James Madison"}, "50": {"role": "joint", "date": "1788-02-05", "title": "Of Appeals"}}
    found = split(body(edition), rule(edition, works=works)).works
    assert [(w.author, w.role) for w in found[48:51]] == [
        ("James Madison", "primary"),
        ("James Madison", "joint"),
        ("James Madison", "primary"),
    ]
    assert (found[49].date, found[49].title) == ("1788-02-05", "Of Appeals")
    with pytest.raises(DeclarationError, match="`works` names 86, which the text does not have"):
        split(body(edition), rule(edition, works={"86": {"author": "x"}}))


def test_a_work_without_attribution_is_never_taken_for_the_authors():
    edition = Edition(unattributed=(12, 40))
    with pytest.raises(
        DeclarationError,
        match=r"no attribution was found for 2 works: 12 \(above its text stands: '.*Advertiser|Packet",
    ):
        split(body(edition), rule(edition))
    found = split(body(edition), rule(edition, unattributed="apart"))
    assert [(w.author, w.role) for w in (found.works[11], found.works[39])] == [("unknown", "joint")] * 2
    assert found.counts["works without attribution"] == 2


def test_an_undeclared_attribution_is_no_attribution():
    edition = Edition()
    text = body(edition).replace("MADISON, with HAMILTON", "MADISON, with JAY")
    with pytest.raises(DeclarationError, match="MADISON, with JAY"):
        split(text, rule(edition))


def test_a_gap_is_named():
    edition = Edition()
    text = body(edition).replace("FEDERALIST No. 33\n", "FEDERALIST Nr. 33\n")
    with pytest.raises(DeclarationError, match="works 33 are missing between 1 and 85"):
        split(text, rule(edition))
    assert len(split(text, rule(edition, missing=[33], expect=84)).works) == 84
    with pytest.raises(DeclarationError, match="85 works were found, 84 are expected"):
        split(body(edition), rule(edition, expect=84))


def test_two_works_under_one_number_are_no_variants():
    edition = Edition()
    lines = body(edition).split("FEDERALIST No. 71")
    other = "\n\nA title\n\nFor the Independent Journal. Monday, March 3, 1788.\n\nJAY\n\nTo the People of the State of New York:\n\n"
    other += " ".join(f"word{i}" for i in range(300)) + "\n\nPUBLIUS\n\n\n\n"
    text = f"{lines[0]}FEDERALIST No. 71{other}FEDERALIST No. 71{lines[1]}"
    with pytest.raises(DeclarationError, match="two works are numbered 71"):
        split(text, rule(edition))


def test_a_reference_that_fills_a_line_is_no_heading():
    edition = Edition(papers=5, twice=0)
    text = body(edition).replace("PUBLIUS.", "as was said in\nFEDERALIST No. 2\nand is said again.\n\nPUBLIUS.", 1)
    found = split(text, rule(edition))
    assert len(found.works) == 5
    assert found.counts["headings in running text"] == 1


def test_a_wrong_weekday_is_remarked_and_a_missing_date_is_left_open():
    edition = Edition(papers=3, twice=0)
    text = body(edition)
    wrong = (
        text.replace(day(2).strftime("%A, %B"), f"Sunday, {day(2).strftime('%B')}") if day(2).weekday() != 6 else text
    )
    found = split(wrong, rule(edition))
    assert any("not a Sunday" in remark for remark in found.remarks)
    undated = text.replace(f" {day(3).strftime('%A, %B')} {day(3).day}, {day(3).year}.", "")
    assert [w.date for w in split(undated, rule(edition)).works] == [day(1).isoformat(), day(2).isoformat(), ""]
    assert split(undated, rule(edition, date="1787-11")).works[2].date == "1787-11"


def test_works_with_titles_for_numbers():
    text = "LETTERS\n\n\nTO A FRIEND.\n\n" + "Dear friend. " * 40 + "\n\n\nTO A CAPTAIN.\n\n" + "Dear captain. " * 40
    found = split(text, Collection(heading=r"TO (?P<title>A [A-Z]+)\."))
    assert [(w.number, w.title, w.author, w.role) for w in found.works] == [
        ("a_captain", "A CAPTAIN", "James Madison", "primary"),
        ("a_friend", "A FRIEND", "James Madison", "primary"),
    ]


@given(st.integers(1, 3999))
def test_roman_numerals(value):
    signs = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ]
    rest, out = value, ""
    for worth, sign in signs:
        out, rest = out + sign * (rest // worth), rest % worth
    assert arabic(out) == arabic(out.lower()) == arabic(str(value)) == value


@pytest.mark.parametrize("text", ["", "ABC", "IC", "VX", "1a", "MADISON"])
def test_no_numeral(text):
    assert arabic(text) is None


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("heading", "No. (", "no regular expression"), ("stem", "paper", "must hold"), ("stem", "{n}", "cannot be filled in"), ("date", "June", "pattern")],
)  # fmt: skip
def test_a_rule_that_cannot_be_used(field, value, said):
    with pytest.raises(ValueError, match=said):
        Collection.model_validate({"heading": "x", field: value})
