"""Break rates: what is asked, what is refused, and what a rate says."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from foundry_pipeline.cli.probes import read_answers
from foundry_pipeline.declarations import load
from foundry_pipeline.declarations.probes import TOPICS, ProbeSet
from foundry_pipeline.errors import DeclarationError, FoundryError
from foundry_pipeline.evaluation.probes import ANSWERS, mode_differences, probe_rates
from foundry_pipeline.statistics.proportions import clustered, difference, wilson
from tests.project import ROOT, make_project

IN_PART = "I have ever thought the harvest the surest news that a planter can send to his friends."
BROKEN = "As an AI language model, I do not have drives of my own."


def probe(name: str, topic: str) -> dict[str, str]:
    return {"id": name, "topic": topic, "text": "What say you of this?"}


SET = ProbeSet.model_validate({"samples": 4, "probes": [probe(f"{t[:4]}-{i}", t) for t in TOPICS for i in (1, 2)]})


def answers(broken: dict[str, dict[str, int]], samples: int = 4) -> pl.DataFrame:
    """mode → probe → how many of its samples break; every probe is asked in every mode."""
    rows = [
        {"mode": m, "probe_id": p.id, "sample": i, "answer": BROKEN if i < counts.get(p.id, 0) else IN_PART}
        for m, counts in broken.items()
        for p in SET.probes
        for i in range(samples)
    ]
    return pl.DataFrame(rows, ANSWERS)


def row(rates: list[dict], mode: str, topic: str, probe_id: str = "") -> dict:
    [found] = [r for r in rates if (r["mode"], r["topic"], r["probe_id"]) == (mode, topic, probe_id)]
    return found


def test_rates_by_mode_topic_and_named_prompt(madison):
    rates = probe_rates(SET, answers({"merged": {"iden-1": 4, "iden-2": 1, "mora-1": 2}, "adapter": {}}), madison)
    assert len(rates) == 2 * (1 + 4 + 8)
    named = row(rates, "merged", "identity", "iden-1")
    assert (named["n"], named["breaks"], named["rate"]) == (4, 4, 1.0)
    assert named["low"] == pytest.approx(wilson(4, 4).low)
    assert named["kinds"]["ai_self_reference"] == 4
    assert row(rates, "merged", "identity") | {"breaks": 5, "n": 8, "rate": 5 / 8} == row(rates, "merged", "identity")
    assert row(rates, "merged", "control")["breaks"] == row(rates, "adapter", "all")["breaks"] == 0
    assert row(rates, "adapter", "all")["high"] > 0.05, "no break in 32 answers is no proof of none"
    gap = {g["probe_id"]: g for g in mode_differences(rates, "merged", "adapter")}
    assert gap["iden-1"]["difference"] == 1.0
    assert gap["iden-1"]["low"] > 0
    assert gap["cont-1"]["low"] < 0 < gap["cont-1"]["high"]
    assert gap["iden-1"]["p"] == pytest.approx(2 / 70)  # Fisher: 4 of 4 against 0 of 4
    assert gap["iden-1"]["verdict"] == "no claim at n=4+4", "of eight prompts asked at once one such is no claim"


def test_more_breaks_are_worse_and_fewer_are_better(madison):
    said = answers({"merged": {"iden-1": 20}, "adapter": {}}, samples=20)
    rates = probe_rates(SET, said, madison)
    worse, better = (mode_differences(rates, *pair) for pair in (("merged", "adapter"), ("adapter", "merged")))
    assert {g["verdict"] for g in worse if g["probe_id"] == "iden-1"} == {"worse"}
    assert {g["verdict"] for g in better if g["probe_id"] == "iden-1"} == {"better"}
    assert {g["verdict"] for g in worse if g["probe_id"] != "iden-1"} == {"no claim at n=20+20"}


def test_an_answer_without_words_is_neither_a_break_nor_its_absence(madison):
    frame = answers({"merged": {"iden-1": 2}}).with_columns(
        pl.when((pl.col("probe_id") == "iden-1") & (pl.col("sample") == 3))
        .then(pl.lit(" … "))
        .otherwise("answer")
        .alias("answer")
    )
    found = row(probe_rates(SET, frame, madison), "merged", "identity", "iden-1")
    assert (found["n"], found["breaks"], found["empty"]) == (3, 2, 1)


def test_what_was_not_asked_is_refused(madison):
    whole = answers({"merged": {}, "adapter": {}})
    cases = {
        "the mode adapter was not asked cont-1": whole.filter(
            (pl.col("mode") == "merged") | (pl.col("probe_id") != "cont-1")
        ),
        "no probe is named nobody": pl.concat([whole, whole.head(1).with_columns(probe_id=pl.lit("nobody"))]),
        "sample 0 of iden-1 in the mode merged comes twice": pl.concat([whole, whole.head(1)]),
        "there is no answer": whole.head(0),
        "no column sample": whole.drop("sample"),
    }
    for message, frame in cases.items():
        with pytest.raises(FoundryError, match=message):
            probe_rates(SET, frame, madison)
    with pytest.raises(FoundryError, match="no answers of the mode `base`"):
        mode_differences(probe_rates(SET, whole, madison), "merged", "base")


@pytest.mark.parametrize("topic", TOPICS)
def test_a_set_that_lacks_a_guarded_topic_is_refused(topic):
    probes = [probe(t[:4], t) for t in TOPICS if t != topic]
    with pytest.raises(ValidationError, match=f"no probe in the guarded topic {topic}"):
        ProbeSet.model_validate({"samples": 4, "probes": probes})


def test_a_set_guards_its_controls_and_names_a_probe_once():
    probes = [probe(t[:4], t) for t in TOPICS]
    with pytest.raises(ValidationError, match="`control` must be a guarded topic"):
        ProbeSet.model_validate({"samples": 4, "probes": probes, "guarded_topics": ["identity"]})
    with pytest.raises(ValidationError, match="used twice: iden"):
        ProbeSet.model_validate({"samples": 4, "probes": [*probes, probes[0]]})


def test_shipped_probes_are_no_questions_of_the_suite_or_the_training():
    madison = load(ROOT).characters["madison"]
    others = {p.text for p in madison.suite.prompts} | {p.text for p in madison.training_prompts}
    assert {p.topic for p in madison.probes.probes} == set(TOPICS)
    assert not {p.text for p in madison.probes.probes} & others
    assert {p.reported for p in madison.probes.probes if p.reported} == {
        "breaks-drives",
        "breaks-slavery",
        "breaks-biography",
    }


def test_a_bad_probe_file_is_named_by_file_and_field(tmp_path: Path):
    project = make_project(tmp_path / "project")
    path = project.root / "sources" / "keeper" / "probes.yaml"
    path.write_text(yaml.safe_dump({"samples": 4, "probes": [probe("a", "identity")]}))
    with pytest.raises(DeclarationError, match="no probe in the guarded topic moral_complexity"):
        load(project.root, "tiny")
    probes = [probe(t[:4], t) | {"reported": "breaks-drive"} for t in TOPICS]
    path.write_text(yaml.safe_dump({"samples": 4, "probes": probes}))
    with pytest.raises(DeclarationError, match="did you mean `breaks-drives`") as error:
        load(project.root, "tiny")
    assert "sources/keeper/probes.yaml" in error.value.where


def test_answers_are_read_from_a_file_or_refused(tmp_path: Path):
    lines = tmp_path / "answers.jsonl"
    lines.write_text("\n".join(json.dumps(r) for r in answers({"base": {}}).to_dicts()))
    assert read_answers(lines).select(ANSWERS.keys()).equals(answers({"base": {}}))
    table = tmp_path / "answers.parquet"
    answers({"base": {}}).write_parquet(table)
    assert read_answers(table).equals(answers({"base": {}}))
    for content in (b"not json", b"\xff\xfe\x00", b'{"mode": "base", "sample": "many"}', b'{"mode": '):
        lines.write_bytes(content)
        with pytest.raises(FoundryError, match="cannot be read"):
            read_answers(lines)
    with pytest.raises(FoundryError, match="cannot be read"):
        read_answers(tmp_path / "nowhere.parquet")


counts = st.integers(1, 30).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(st.lists(counts, min_size=1, max_size=8))
def test_likeness_within_prompts_only_ever_widens(found):
    rate = clustered(found)
    single = wilson(sum(c for c, _ in found), sum(n for _, n in found))
    assert (rate.rate, rate.n) == (single.rate, single.n)
    assert 0 <= rate.low <= rate.rate <= rate.high <= 1
    assert rate.high - rate.low >= single.high - single.low - 1e-9


def test_all_of_one_prompt_and_none_of_another_say_little_of_a_third():
    found = clustered([(40, 40), (0, 40)])
    assert found.high - found.low > 0.75
    assert wilson(40, 80).high - wilson(40, 80).low < 0.25
    assert clustered([]).rate is None
    assert clustered([(0, 0), (3, 4)]) == wilson(3, 4)


@given(counts, counts)
def test_a_difference_of_rates_lies_between_its_bounds_and_mirrors(a, b):
    one, other = difference(a, b), difference(b, a)
    assert -1 <= one["low"] <= one["difference"] + 1e-9
    assert one["difference"] <= one["high"] + 1e-9 <= 1 + 2e-9
    assert one["low"] == pytest.approx(-other["high"], abs=1e-9)
