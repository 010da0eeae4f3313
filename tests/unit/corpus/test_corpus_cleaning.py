from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.corpus.cleaning import apply_rules, check_examples, clean, raw_span, replay
from foundry_pipeline.corpus.connectors import RawDocument
from foundry_pipeline.declarations.sources import CleaningRule, SourceManifest
from foundry_pipeline.errors import DamagedArtifact, DeclarationError

# -- offsets: any text, any rules ----------------------------------------------------------------------------------------

LETTERS = "ab é\n"
PATTERNS = ["a", "b+", "ab|é", "(a)(b)", r"\s+", "[ab]{2}", r"(?<=a)b", r".", "a.b", "é?b"]
REPLACEMENTS = ["", "a", "bb", "<é>", "ab ab"]


@st.composite
def rules(draw):
    made = []
    for number in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["regex", "text"]))
        find = draw(st.sampled_from(PATTERNS) if kind == "regex" else st.text(LETTERS, min_size=1, max_size=3))
        made.append(_rule(f"r{number}", find, draw(st.sampled_from(REPLACEMENTS)), kind=kind))
    return made


def _rule(name, find, replace, *, kind="text", **more):
    example = more.pop("example", {"before": "x", "after": "x"})
    return CleaningRule(id=name, kind=kind, find=find, replace=replace, reason="because", example=example, **more)


def _plain(raw: str, ruleset) -> str:
    """What the rules mean, without any bookkeeping: the reference that the pieces must agree with."""
    for rule in ruleset:
        raw = re.sub(rule.find, rule.replace, raw) if rule.kind == "regex" else raw.replace(rule.find, rule.replace)
    return raw


@given(st.text(LETTERS, max_size=40), rules())
def test_changes_replay_to_the_cleaned_text(raw, ruleset):
    text, changes = apply_rules(raw, ruleset, document_id="d")
    assert text == _plain(raw, ruleset)
    assert replay(raw, changes) == text
    for change in changes:
        assert 0 <= change.raw_start < change.raw_end <= len(raw)
        assert change.before != change.after


@given(st.text(LETTERS, max_size=40), rules())
def test_untouched_stretches_stand_unchanged_between_the_changes(raw, ruleset):
    """The cleaned text is the transcription with only the recorded stretches exchanged."""
    text, changes = apply_rules(raw, ruleset, document_id="d")
    kept = [i for i in range(len(raw)) if not any(c.raw_start <= i < c.raw_end for c in changes)]
    letters = iter(text)
    assert all(raw[i] in letters for i in kept)  # in order, none lost
    if not changes:
        assert text == raw


@given(st.text(LETTERS, min_size=1, max_size=40), rules(), st.data())
def test_every_cleaned_character_is_traced_to_the_transcription(raw, ruleset, data):
    text, changes = apply_rules(raw, ruleset, document_id="d")
    if not text:
        return
    at = data.draw(st.integers(0, len(text) - 1))
    start, end = raw_span(raw, changes, at, at + 1)
    assert 0 <= start < end <= len(raw)
    if not any(c.raw_start < end and start < c.raw_end for c in changes):
        assert raw[start:end] == text[at]
    before, after = raw_span(raw, changes, 0, len(text)), (start, end)
    assert before[0] <= after[0]
    assert after[1] <= before[1]


@given(st.text(LETTERS, max_size=30), rules(), st.integers(0, 100))
def test_a_forged_change_is_found(raw, ruleset, which):
    _, changes = apply_rules(raw, ruleset, document_id="d")
    if not changes:
        return
    which %= len(changes)
    forged = changes[which].__class__(**{**vars(changes[which]), "before": changes[which].before + "?"})
    with pytest.raises(DamagedArtifact, match=forged.rule):
        replay(raw, [*changes[:which], forged, *changes[which + 1 :]])


def test_a_rule_on_what_another_wrote_keeps_its_place_in_the_transcription():
    raw = "more than $9M of it, $2M left"
    ruleset = [_rule("m", r"\$(\d)M", r"$\1,000,000", kind="regex"), _rule("about", "$2,000,000", "about $2,000,000")]
    text, changes = apply_rules(raw, ruleset, document_id="d")
    assert text == "more than $9,000,000 of it, about $2,000,000 left"
    last = changes[-1]
    assert (raw[last.raw_start : last.raw_end], last.before, last.after) == ("$2M", "$2,000,000", "about $2,000,000")
    assert last.context == "more than $9M of it, $2M left"
    start = text.index("000 left")
    assert raw[slice(*raw_span(raw, changes, start, start + 3))] == "$2M"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (_rule("open", "(a", "b", kind="regex"), "is no regular expression"),
        (_rule("nothing", "b*", "b", kind="regex"), "matches an empty string"),
        (_rule("group", "(a)", r"\2", kind="regex"), "cannot be filled in"),
    ],
)
def test_a_bad_rule_is_named(rule, said):
    with pytest.raises(DeclarationError, match=f"`{rule.id}`.*{said}"):
        apply_rules("a", [rule], document_id="d")


# -- a source's rules ----------------------------------------------------------------------------------------------------


def _source(*ruleset):
    manifest = SourceManifest.model_validate(
        {
            "source": "s",
            "title": "t",
            "author": "a",
            "license": "l",
            "document_id": "{stem}",
            "connector": {"kind": "local", "path": ".", "documents": {}},
        }
    ).model_copy(update={"cleaning": ruleset})
    texts = {"one": "a cat sat", "two": "a cat and a cat"}
    sha = {k: hashlib.sha256(v.encode()).hexdigest() for k, v in texts.items()}
    return manifest, [RawDocument(k, k, "1800-01-01", "", v, sha[k]) for k, v in texts.items()]


def test_rules_keep_to_their_documents():
    manifest, documents = _source(_rule("dog", "cat", "dog", documents=("two",), expect=2))
    cleaned, changes = clean(manifest, documents)
    assert [d.text for d in cleaned] == ["a cat sat", "a dog and a dog"]
    assert [d.raw for d in cleaned] == ["a cat sat", "a cat and a cat"]
    assert {c.document_id for c in changes} == {"two"}


def test_expect_not_met_names_rule_expected_and_found():
    manifest, documents = _source(_rule("dog", "cat", "dog", expect=2))
    with pytest.raises(DeclarationError, match="`dog` was to change 2 places and changed 3"):
        clean(manifest, documents)


def test_a_place_that_reads_right_is_no_change():
    manifest, documents = _source(_rule("cat", "[ck]at", "cat", kind="regex", expect=0))
    assert clean(manifest, documents)[1] == []


def test_unknown_document_and_twice_used_id_are_refused():
    manifest, documents = _source(_rule("dog", "cat", "dog", documents=("three",)))
    with pytest.raises(DeclarationError, match="`dog` names documents that are not read: three"):
        clean(manifest, documents)
    manifest, documents = _source(_rule("dog", "cat", "dog"), _rule("dog", "sat", "lay"))
    with pytest.raises(DeclarationError, match="`dog` is declared twice"):
        clean(manifest, documents)


def test_an_example_that_its_rule_does_not_make_is_refused():
    good = _rule("dog", "cat", "dog", example={"before": "a cat", "after": "a dog"}, documents=("two",))
    check_examples(_source(good)[0])
    bad = _rule("dog", "cat", "dog", example={"before": "a cat", "after": "a cow"})
    with pytest.raises(DeclarationError, match="'a dog', not into 'a cow'"):
        check_examples(_source(bad)[0])


# -- the declared sources ------------------------------------------------------------------------------------------------


def test_every_declared_rule_makes_its_example_and_has_a_fixed_count(manifests):
    for manifest in manifests.values():
        check_examples(manifest)
        for rule in manifest.cleaning:
            assert rule.expect, rule.id
            assert rule.reason, rule.id


def test_the_real_changes_replay(corpus):
    for row in corpus.documents.iter_rows(named=True):
        own = corpus.changes.filter(document_id=row["document_id"])
        changes = [_change(c) for c in own.iter_rows(named=True)]
        assert replay(row["raw"], changes) == row["text"]
        for change in changes:
            if change.rule != "about-25-millions":  # the one rule that works on what another wrote
                assert row["raw"][change.raw_start : change.raw_end] == change.before, change.rule


def _change(row):
    from foundry_pipeline.corpus.cleaning import Change

    return Change(**row)


def test_no_shorthand_is_left(corpus):
    """Nothing in the text that is read from reveals its transcriber."""
    for row in corpus.documents.iter_rows(named=True):
        text = row["text"]
        left = re.findall(r"\$[\d.]+[MK]\b|[#<>\[\]{}@*=%&Õ]|Ô|WRT|w/|\b[A-Z]{2,}\b|\b\d{4} [A-Z][a-z]+ \d|- ", text)
        assert not left, (row["document_id"], left)
        assert "  " not in text
    own = corpus.documents.filter(role="primary")["text"].str.join("\n").item()
    assert not re.findall(r"(?<![$,.\d])\d(?![,.]?\d|nd|st)|\bsea (?:men|port)|\d(?:st|nd|th)(?! of | day )", own)


@pytest.mark.parametrize(
    ("document", "wrong", "right"),
    [
        ("annual_message_1810", "and flexible exertions", "united councils and inflexible exertions"),
        (
            "annual_message_1810",
            "1807 November",
            "the original orders of November, 1807, into the orders of April, 1809,",
        ),
        ("annual_message_1810", "$3.75 ", "at the end of the year $3,750,000 of the principal"),
        ("annual_message_1812", "Maine", "the governors of Massachusetts and Connecticut"),
        ("annual_message_1812", "is proceeding in", "toward the Michigan Territory, having succeeded in relieving"),
        ("annual_message_1812", "$3M", "a necessary reimbursement of near three millions of the principal"),
        ("annual_message_1813", "unite for the abundance;", "for the abundance which overspreads our land"),
        ("annual_message_1813", "[see", "In consequence of our naval superiority on Lake Ontario"),
        ("annual_message_1814", "near 1000", "the capture of nearly a thousand American vessels"),
        ("annual_message_1816", "charger", "the great principles consecrated in its charter"),
        ("annual_message_1816", "<$", "estimated at a sum less than $20,000,000"),
        ("annual_message_1816", "sum of $25,000,000", "estimated at a sum of about $25,000,000."),
        ("jefferson_message_1806", "Ôtil", "take prohibitory effect till the 1st day of the year 1808"),
        ("jefferson_message_1803", "$880K", "$880,000 have been reserved"),
    ],
)
def test_readings_of_the_printed_messages(corpus, document, wrong, right):
    text = corpus.documents.filter(document_id=document)["text"].item()
    assert wrong not in text
    assert text.count(right) == 1
