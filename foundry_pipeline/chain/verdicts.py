"""Verdicts: the data checks of a dataset, run once for its hash and kept beside it."""

from __future__ import annotations

from typing import Any

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.frames import held_out_texts, read_frame, suite_texts
from foundry_pipeline.chain.gate import read_verdict, write_verdict
from foundry_pipeline.datasets.content import read_dataset
from foundry_pipeline.datasets.expectations import build_suite, check_dataset, suite_hash
from foundry_pipeline.declarations import Declarations


def expected_suite_hash(d: Declarations, chain: Chain, name: str) -> str:
    """Hash of the expectations, with their bounds and texts, that a dataset must meet under the present declarations."""
    suite = build_suite(d.datasets[name], profile=d.profile, declared=d.datasets)
    return suite_hash(suite, _texts(d, chain, name))


def _texts(d: Declarations, chain: Chain, name: str) -> dict[str, list[str]]:
    files = d.characters[d.datasets[name].character]
    passages = chain.require(f"{files.character.character}_passages")
    return {"suite": suite_texts(files), "held_out": held_out_texts(read_frame(passages.artifact, "passages"))}


def dataset_verdict(d: Declarations, chain: Chain, name: str) -> dict[str, Any]:
    """The verdict on a dataset as built now: found beside it, or reached by running its expectations."""
    done = chain.require(name)
    known = read_verdict(done.artifact)
    expected = expected_suite_hash(d, chain, name)
    if known and known.get("dataset_hash") == done.artifact.content_hash and known.get("suite_hash") == expected:
        return known
    texts = _texts(d, chain, name)
    verdict = check_dataset(
        read_dataset(done.artifact.payload, name=name),
        dataset=d.datasets[name],
        profile=d.profile,
        character=d.characters[d.datasets[name].character].character,
        suite_texts=texts["suite"],
        held_out_texts=texts["held_out"],
        declared=d.datasets,
        expected_hash=done.artifact.content_hash,
    ).as_dict()
    write_verdict(done.artifact, verdict)
    return verdict
