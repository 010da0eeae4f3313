"""Madison's real passages, the real sentence encoder and one rubric for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import yaml

from foundry_pipeline.corpus.cleaning import clean
from foundry_pipeline.corpus.connectors import read_source
from foundry_pipeline.corpus.embeddings import KeptVectors
from foundry_pipeline.corpus.passages import cut_passages
from foundry_pipeline.declarations.sources import Character, ControlSet, EvaluationPrompt, SourceManifest
from foundry_pipeline.evaluation.rubric import RubricLocal

HERE = Path(__file__).parent
MADISON = HERE.parents[2] / "sources" / "madison"


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def madison() -> Character:
    return Character(**read(MADISON / "character.yaml"))


@pytest.fixture(scope="session")
def madison_passages(madison: Character) -> pl.DataFrame:
    rows = []
    for path in sorted((MADISON / "manifests").glob("*.yaml")):
        manifest = SourceManifest(**read(path))
        documents = read_source(manifest, base=path.parent)
        dates = {d.document_id: d.date for d in documents}
        for document in clean(manifest, documents)[0]:
            rows.append(
                {
                    "document_id": document.document_id,
                    "date": dates[document.document_id],
                    "text": document.text,
                    "source": manifest.source,
                    "role": manifest.role,
                    "author": manifest.author,
                    "held_out": document.document_id in madison.held_out_documents,
                }
            )
    return cut_passages(pl.DataFrame(rows))


@pytest.fixture(scope="session")
def rubric(madison: Character, madison_passages: pl.DataFrame, encoder: KeptVectors) -> RubricLocal:
    return RubricLocal(madison, madison_passages, encoder.embed)


@pytest.fixture(scope="session")
def development() -> ControlSet:
    return ControlSet(**read(HERE / "rubric_development.yaml"))


@pytest.fixture(scope="session")
def hard_development() -> ControlSet:
    return ControlSet(**read(HERE / "rubric_development_hard.yaml"))


@pytest.fixture(scope="session")
def militia(development: ControlSet) -> EvaluationPrompt:
    return next(c.prompt for c in development.controls if c.id == "dev-militia")
