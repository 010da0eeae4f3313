"""Probes put to a serving mode, by a tiny real model: asked once, found again, refused where something is missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.chain.probing import probe_answers, probe_run, probes_stage, samples_of
from foundry_pipeline.declarations.probes import TOPICS
from foundry_pipeline.errors import FoundryError, MissingArtifact
from foundry_pipeline.evaluation.probes import probe_rates
from foundry_pipeline.launch import run_script
from foundry_pipeline.settings import Settings
from tests.prepared import prepare
from tests.unit.export.tiny_model import write_tiny

RUN = "keeper_first"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, dense: Path) -> Settings:
    root = tmp_path_factory.mktemp("probing") / "project"
    tiny = write_tiny(tmp_path_factory.mktemp("tiny") / "model", dense)
    made = Settings(prepare(root, dense=tiny).root, root / ".foundry", "tiny")
    probes = [{"id": t.replace("_", "-"), "topic": t, "text": "Who keeps the light?"} for t in TOPICS]
    text = yaml.safe_dump({"samples": 3, "probes": probes})
    (root / "sources" / "keeper" / "probes.yaml").write_text(text)
    return made


def nobody(module: str, spec: Mapping[str, Any], work: Path) -> None:
    raise AssertionError("nothing is asked twice")


def test_probes_are_answered_once_and_every_sample_has_its_own_seed(settings: Settings):
    d, chain = load_chain(settings)
    done = probe_run(d, chain, RUN, modes=["base"], run_script=run_script, log=print)
    answers = probe_answers(done.artifact)
    assert answers.height == 4 * 3
    assert answers["answer"].n_unique() > 4, "samples of one question differ"
    rates = probe_rates(d.characters["keeper"].probes, answers, d.characters["keeper"].character)
    assert {(r["mode"], r["n"] + r["empty"]) for r in rates if r["probe_id"]} == {("base", 3)}
    again = probe_run(*load_chain(settings), RUN, modes=["base"], run_script=nobody, log=print)
    assert again.reused
    assert again.artifact.content_hash == done.artifact.content_hash
    assert f"{RUN}_probes" not in chain.stages


def test_what_cannot_be_asked_is_refused_with_a_command(settings: Settings):
    d, chain = load_chain(settings)
    how = {"run_script": nobody, "log": print}
    with pytest.raises(MissingArtifact) as missing:
        probe_run(d, chain, RUN, modes=["adapter"], **how)
    assert missing.value.mend == f"dagster asset materialize --select '*{RUN}_adapter'"
    with pytest.raises(FoundryError, match="not served as q9"):
        probe_run(d, chain, RUN, modes=["q9"], **how)
    with pytest.raises(FoundryError, match="1 samples"):
        probe_run(d, chain, RUN, samples=1, **how)
    with pytest.raises(FoundryError, match="no run `nobody`"):
        probe_run(d, chain, "nobody", **how)


def test_exported_modes_wait_for_their_parity(settings: Settings):
    d, _ = load_chain(settings)
    assert probes_stage(d, RUN, modes=["base"]).gate is None
    merged = probes_stage(d, RUN, modes=["merged"])
    assert merged.gate is not None
    assert f"{RUN}_gguf" in merged.inputs
    asked = samples_of(d.characters["keeper"].probes, 2)
    assert len({s.id for s in asked}) == len(asked) == 8
