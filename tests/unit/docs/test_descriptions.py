"""Every kind, table and column is described; what is not is named; the tables are those that the code writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.chain.judges_stage import AGREEMENT, AUDIT
from foundry_pipeline.corpus.transcriptions import DIFFERENCE_SCHEMA
from foundry_pipeline.defs.assets import GROUPS
from foundry_pipeline.docs.descriptions import load_descriptions, run_of, undescribed
from foundry_pipeline.errors import DeclarationError
from foundry_pipeline.evaluation.controls import TABLE_SCHEMA
from foundry_pipeline.evaluation.scoring import SCORES_SCHEMA
from foundry_pipeline.evaluation.serving_matrix import MATRIX
from foundry_pipeline.export.parity import TENSORS
from foundry_pipeline.pairs import introspection
from foundry_pipeline.pairs.candidates import PAIRS
from foundry_pipeline.pairs.filters import DROPPED
from foundry_pipeline.pairs.teachers.frames import DROPS, RESPONSES
from foundry_pipeline.pairs.teachers.generated import RAW
from foundry_pipeline.settings import Settings
from tests.conftest import ROOT

WRITTEN = {
    ("passages", "differences"): DIFFERENCE_SCHEMA,
    ("teacher_responses", "responses"): RESPONSES,
    ("teacher_responses", "drops"): DROPS,
    ("teacher_responses", "replies"): RAW,
    ("introspection", "pairs"): PAIRS,
    ("introspection", "rows"): introspection.ROWS,
    ("introspection", "dropped"): introspection.DROPPED,
    ("candidate_pairs", "pairs"): {**PAIRS, "finish_reason": pl.String},
    ("filtered_pairs", "pairs"): {**PAIRS, "finish_reason": pl.String},
    ("filtered_pairs", "dropped"): DROPPED,
    ("dataset", "pairs"): PAIRS,
    ("parity", "tensors"): TENSORS,
    ("eval", "scores"): SCORES_SCHEMA,
    ("eval", "controls"): TABLE_SCHEMA,
    ("serving_matrix", "matrix"): MATRIX,
    ("judges", "agreement"): AGREEMENT,
    ("judges", "audit"): AUDIT,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project folder whose descriptions a test may spoil."""
    shutil.copytree(ROOT / "dbt_style_docs", tmp_path / "dbt_style_docs")
    return tmp_path


def test_nothing_is_left_undescribed() -> None:
    assert undescribed(load_descriptions(ROOT), dict(GROUPS)) == []


@pytest.mark.parametrize("place", WRITTEN, ids=".".join)
def test_the_tables_are_those_that_the_code_writes(place: tuple[str, str]) -> None:
    kind, table = place
    declared = load_descriptions(ROOT).tables[kind][table].columns
    assert declared == {name: str(dtype) for name, dtype in WRITTEN[place].items()}


def test_a_column_of_two_meanings_has_two_descriptions() -> None:
    described = load_descriptions(ROOT)
    place, component = (
        described.column("passages", "passages", "position"),
        described.column("eval", "scores", "position"),
    )
    assert place is not None
    assert component is not None
    assert "Component" in component
    assert "Component" not in place
    assert described.column("eval", "scores", "no_such_column") is None


def test_what_is_undescribed_is_named_with_its_place(root: Path) -> None:
    columns = root / "dbt_style_docs/columns.md"
    block = "{% docs chosen %}"
    assert block in columns.read_text()
    columns.write_text(columns.read_text().replace(block, "{% docs chosen_no_more %}"))
    faults = undescribed(load_descriptions(root), {"dataset": "datasets", "adapter": "no_such_group"})
    assert any("column `chosen` of table `pairs` of kind `dataset`" in f and "columns.md" in f for f in faults)
    assert any("group `no_such_group`" in f for f in faults)
    assert len(faults) == 2


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("tables.yaml", "dataset:\n  pairs: {columns: {a: String}}\n", "dataset.pairs.description"),
        ("tables.yaml", "dataset:\n  pairs: {description: x, columns: {}}\n", "dataset.pairs.columns"),
        (
            "tables.yaml",
            "dataset:\n  pairs: {description: x, columns: {a: String}, colour: red}\n",
            "dataset.pairs.colour",
        ),
        ("tables.yaml", "- not a mapping\n", "mapping"),
        ("tables.yaml", "dataset: [1]\n", "mapping"),
        ("tables.yaml", "a: {b: \n", "tables.yaml"),
        ("groups.yaml", "models: {title: M, description: ''}\n", "models.description"),
        ("groups.yaml", "models: {title: M, description: d, owners: 3}\n", "models.owners"),
    ],
)
def test_a_bad_file_is_refused_by_its_field(root: Path, file: str, text: str, named: str) -> None:
    (root / "dbt_style_docs" / file).write_text(text)
    with pytest.raises(DeclarationError) as told:
        load_descriptions(root)
    assert named in str(told.value)
    assert file in str(told.value)


def test_assets_are_owned_by_their_character_or_their_group(tmp_path: Path) -> None:
    d, chain = load_chain(Settings(ROOT, tmp_path / "store", "laptop"))
    described = load_descriptions(ROOT)
    for stage in chain.stages.values():
        owners = described.owners(d, stage, GROUPS[stage.kind])
        assert owners == (("team:madison",) if stage.character else ("team:foundry",)), stage.name
    r2 = chain.stages["madison_r2_serving_matrix"]
    assert run_of(d, r2) == "madison_r2"
    assert described.asset(d, r2).startswith(" ".join(d.runs["madison_r2"].description.split()))
    assert run_of(d, chain.stages["madison_dataset_v6"]) is None
