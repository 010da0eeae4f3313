"""The way through a store: of any length, past what was built again, and told as OpenLineage events."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState

from foundry_pipeline.chain.score_diff import joined
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.lineage.openlineage import event_lines
from foundry_pipeline.lineage.store import Record, Store
from foundry_pipeline.lineage.trace import Trace, forward_scores, trace_record
from foundry_pipeline.lineage.walk import Walker
from tests.unit.collapse_sample import HOSTILE


def publish(
    store: Store,
    name: str,
    kind: str,
    upstream: dict[str, Record] | None = None,
    frames: dict[str, pl.DataFrame] | None = None,
    **fields: Any,
) -> Record:
    """One artifact in the store, its content its name and its frames."""
    input_hash = fields.pop(
        "input_hash", digest({"name": name, **{n: r.input_hash for n, r in (upstream or {}).items()}})
    )
    payload = store.work(input_hash) / "payload"
    payload.mkdir()
    (payload / "name.txt").write_text(fields.pop("content", name))
    for frame, table in (frames or {}).items():
        table.write_parquet(payload / f"{frame}.parquet")
    store.publish(
        payload,
        record={
            "name": name,
            "kind": kind,
            "input_hash": input_hash,
            "inputs": {n: {"content": r.content_hash, "input": r.input_hash} for n, r in (upstream or {}).items()},
            "declaration": fields.pop("declaration", {}),
            "external": {},
            "code_version": "c0de",
            "facts": {"built_at": "2026-11-21T20:00:00+00:00", "build_seconds": 1.5, **fields},
        },
    )
    store.discard_work(input_hash)
    record = store.record(input_hash)
    assert record is not None
    return record


def pairs(*quoted: list[str] | None) -> dict[str, pl.DataFrame]:
    columns = {
        "pair_id": pl.String,
        "prompt_id": pl.String,
        "origin": pl.String,
        "category": pl.String,
        "student": pl.String,
    }
    rows = [{c: f"{c}{i}" for c in columns} | {"passage_ids": ids, "upsample": 1} for i, ids in enumerate(quoted)]
    return {"pairs": pl.DataFrame(rows, {**columns, "passage_ids": pl.List(pl.String), "upsample": pl.Int64})}


def texts(**documents: list[str]) -> dict[str, pl.DataFrame]:
    """Document id → its passages."""
    listed = [(p, d) for d, ps in documents.items() for p in ps]
    return {
        "passages": pl.DataFrame(
            {
                "passage_id": [p for p, _ in listed],
                "document_id": [d for _, d in listed],
                "position": [0] * len(listed),
                "date": ["1812"] * len(listed),
                "words": [9] * len(listed),
            }
        ),
        "documents": pl.DataFrame(
            {
                "document_id": list(documents),
                "title": [HOSTILE] * len(documents),
                "date": ["1812"] * len(documents),
                "url": [""] * len(documents),
                "license": ["CC0"] * len(documents),
                "raw_sha256": [digest(d) for d in documents],
            }
        ),
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def scored(store: Store) -> tuple[Record, list[dict[str, Any]]]:
    """Two datasets, the second run starting from a model of the first; one evaluation, one row."""
    sources = publish(store, "x_sources", "sources")
    passages = publish(
        store, "x_passages", "passages", {"x_sources": sources}, texts(a=["a1", "a2"], b=["b1"], c=["c1"])
    )
    first = publish(store, "x_dataset_v1", "dataset", {"x_passages": passages}, pairs(["a1"], ["a2", "b1"], None))
    early = publish(store, "x_early_adapter", "adapter", {"x_dataset_v1": first})
    merged = publish(store, "x_early_merged", "merged", {"x_early_adapter": early})
    second = publish(store, "x_dataset_v2", "dataset", {"x_passages": passages}, pairs(["b1"], ["b1"], []))
    adapter = publish(store, "x_late_adapter", "adapter", {"x_early_merged": merged, "x_dataset_v2": second})
    evaluation = publish(store, "x_late_eval", "eval", {"x_late_adapter": adapter, "x_passages": passages})
    return evaluation, [
        {"score_id": "5" * 64, "input_hash": evaluation.input_hash, "artifact_hash": evaluation.content_hash,
         "mode": HOSTILE, "judge": "rubric-local", "overall": 6.5}
    ]  # fmt: skip


def test_forward_tells_each_way_a_document_took(store: Store) -> None:
    _, scores = scored(store)
    (a,) = forward_scores(store, "a", scores)
    assert (a["pairs_touched"], a["upstream_pairs"], a["read_by_judge"]) == (0, {"x_dataset_v1": 2}, True)
    (b,) = forward_scores(store, "b", scores)
    assert (b["pairs_touched"], b["upstream_pairs"]) == (2, {"x_dataset_v1": 1})
    (by_hash,) = forward_scores(store, digest("c")[:8], scores)
    assert (by_hash["pairs_touched"], by_hash["upstream_pairs"], by_hash["read_by_judge"]) == (0, {}, True)
    for unknown in ("d", digest("c")[:7], "", HOSTILE):
        with pytest.raises(FoundryError, match="no recorded score") as caught:
            forward_scores(store, unknown, scores)
        assert caught.value.mend == "name one of: a, b, c"
        assert "\x1b" not in str(caught.value)


def test_backward_ends_at_the_pairs_that_were_trained_on(store: Store) -> None:
    evaluation, scores = scored(store)
    way = trace_record(store, evaluation, scores=scores, current={})
    assert way.nodes[0].name == "x_late_eval"
    assert len(way.nodes) == 8
    assert [p["passage_ids"] for p in way.pairs] == [["b1"], ["b1"], []]
    assert [d["document_id"] for d in way.documents] == ["b"]


def test_a_chain_of_any_length_is_walked(store: Store) -> None:
    """Three thousand builds in a line: more than Python's own stack of calls would bear."""
    (store.root / "index").mkdir(parents=True)
    below: dict[str, Any] | None = None
    for number in range(3000):
        digests = {"input": f"{number:064x}", "content": f"{number + 10**6:064x}"}
        folder = store.folder(digests["content"])
        folder.mkdir(parents=True)
        record = {
            "name": f"step_{number}", "kind": "dataset", "input_hash": digests["input"], "content_hash": digests["content"],
            "inputs": {f"step_{number - 1}": below} if below else {}, "declaration": {}, "external": {},
            "code_version": "", "facts": {},
        }  # fmt: skip
        (folder / "manifest.json").write_text("{}")
        (store.root / "index" / f"{digests['input']}.json").write_text(json.dumps(record))
        below = digests
    last = store.record(f"{2999:064x}")
    assert last is not None
    steps = list(Walker(store).walk(last))
    assert [s.record.name for s in steps] == [f"step_{n}" for n in reversed(range(3000))]
    assert not any(s.note for s in steps)


def test_what_was_really_used_is_found_after_it_was_built_again(store: Store) -> None:
    evaluation, _ = scored(store)
    old = store.record(evaluation.inputs["x_passages"]["input"])
    assert old is not None
    again = publish(store, "x_passages", "passages", content="another", input_hash=old.input_hash)
    assert again.content_hash != old.content_hash
    steps = {s.record.name: s for s in Walker(store).walk(evaluation)}
    assert steps["x_passages"].record.content_hash == old.content_hash
    assert steps["x_passages"].note == f"built again since, then as {again.content_hash[:12]}"
    assert "x_sources" in steps, "the way goes on behind it"
    store.quarantine(again.content_hash)
    lost = {s.record.name: s for s in Walker(store).walk(evaluation)}
    assert lost["x_passages"].note == "no longer in the index, found by its content"
    store.quarantine(old.content_hash)
    gone = {s.record.name: s.note for s in Walker(store).walk(evaluation)}
    assert "x_passages" not in gone
    assert f"x_passages ({old.content_hash[:12]}) is no longer in the store" in gone["x_late_eval"]


# -- OpenLineage ---------------------------------------------------------------------------------------------------

_FACETS = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "required": ["_producer", "_schemaURL"],
        "properties": {
            "_producer": {"type": "string", "format": "uri"},
            "_schemaURL": {"type": "string", "format": "uri"},
        },
    },
}
_DATASETS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["namespace", "name"],
        "properties": {"namespace": {"type": "string"}, "name": {"type": "string"}, "facets": _FACETS},
    },
}
# What the specification of a run event requires, in our own words.
RUN_EVENT = {
    "type": "object",
    "required": ["eventType", "eventTime", "run", "job", "producer", "schemaURL"],
    "properties": {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {"type": "string", "pattern": r"^https://openlineage\.io/spec/.*RunEvent$"},
        "run": {"type": "object", "required": ["runId"], "properties": {"runId": {"type": "string", "format": "uuid"}}},
        "job": {
            "type": "object",
            "required": ["namespace", "name"],
            "properties": {"namespace": {"type": "string"}, "name": {"type": "string"}, "facets": _FACETS},
        },
        "inputs": _DATASETS,
        "outputs": _DATASETS,
    },
}


def events(way: Trace) -> list[dict[str, Any]]:
    lines = list(event_lines(way))
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)
    return [json.loads(line) for line in lines]


def test_events_are_valid_and_whole(store: Store) -> None:
    evaluation, scores = scored(store)
    way = trace_record(store, evaluation, scores=scores, current={})
    found = events(way)
    assert found == events(way), "the same trace is the same events"
    for event in found:
        jsonschema.validate(event, RUN_EVENT, format_checker=jsonschema.FormatChecker())
        # Its own classes check what they are given.
        RunEvent(
            eventType=RunState[event["eventType"]],
            eventTime=event["eventTime"],
            producer=event["producer"],
            run=Run(event["run"]["runId"]),
            job=Job(event["job"]["namespace"], event["job"]["name"]),
            inputs=[InputDataset(i["namespace"], i["name"]) for i in event["inputs"]],
            outputs=[OutputDataset(o["namespace"], o["name"]) for o in event["outputs"]],
        )
        uuid.UUID(event["run"]["runId"])
    by_run: dict[str, list[str]] = {}
    for event in found:
        by_run.setdefault(event["run"]["runId"], []).append(event["eventType"])
    assert list(by_run.values()) == [["START", "COMPLETE"]] * len(way.nodes)
    assert found[0]["eventTime"] < found[1]["eventTime"]
    # Every input is the output of an earlier run, or a document.
    made: set[tuple[str, str]] = set()
    for event in found:
        for dataset in event["inputs"]:
            version = dataset["facets"]["version"]["datasetVersion"]
            assert dataset["name"].startswith("document/") or (dataset["name"], version) in made
        made |= {(o["name"], o["facets"]["version"]["datasetVersion"]) for o in event["outputs"]}
    assert made == {(n.name, n.content_hash) for n in way.nodes}
    tags = {t["key"]: t["value"] for t in found[-1]["outputs"][0]["facets"]["tags"]["tags"]}
    assert tags[f"score.{HOSTILE}.rubric-local"] == "6.5"


def test_a_build_without_a_time_gives_no_event(store: Store) -> None:
    record = publish(store, "x_sources", "sources", built_at="once upon a time")
    with pytest.raises(FoundryError, match="when it was built"):
        list(event_lines(trace_record(store, record, scores=(), current={})))


# -- data beside scores --------------------------------------------------------------------------------------------

MOVED = {
    "ground_truth": {"left": 10, "right": 30, "difference": 20},
    "private_voice": {"left": 5, "right": 5, "difference": 0},
}


def evaluation_row(store: Store, run: str, marks: dict[str, list[float | None]]) -> dict[str, Any]:
    rows = [
        {
            "mode": mode,
            "prompt_id": f"{category}-{i}",
            "category": category,
            "overall": mark if mode == "adapter" else 1.0,
        }
        for mode in ("base", "adapter")
        for category, given in marks.items()
        for i, mark in enumerate(given)
    ]
    schema = {"mode": pl.String, "prompt_id": pl.String, "category": pl.String, "overall": pl.Float64}
    record = publish(
        store, f"{run}_eval", "eval", frames={"scores": pl.DataFrame(rows, schema)},
        declaration={"resamples": 300, "confidence": 0.9},
    )  # fmt: skip
    means = {c: sum(m for m in given if m is not None) / len(given) for c, given in marks.items()}
    return {
        "run": run,
        "mode": "adapter",
        "input_hash": record.input_hash,
        "artifact_hash": record.content_hash,
        "categories": means,
        "overall": sum(means.values()) / len(means),
    }


def test_points_stand_beside_pairs_by_category(store: Store) -> None:
    one = evaluation_row(store, "one", {"ground_truth": [4.0, 5.0, 6.0, 3.0], "private_voice": [5.0, 5.0, 5.0]})
    two = evaluation_row(store, "two", {"ground_truth": [6.0, 6.5, 9.0, 5.0], "private_voice": [5.0, None, 5.0]})
    found = joined(store, one, two, MOVED)
    assert found["how"] == "paired"
    truth, voice = found["categories"]
    assert (truth["category"], truth["pairs"]["difference"], truth["n"]) == ("ground_truth", 20, 4)
    assert truth["difference"] == pytest.approx(2.125)
    assert 1.5 <= truth["low"] < truth["difference"] < truth["high"] <= 3.0
    # One question unscored on one side is compared on neither.
    assert (voice["difference"], voice["low"], voice["high"], voice["n"]) == (0.0, 0.0, 0.0, 2)
    assert found["overall"]["n"] == 6
    assert found["overall"]["difference"] == pytest.approx(8.5 / 6)
    assert joined(store, one, one, MOVED)["overall"]["difference"] == 0.0


def test_without_the_evaluation_the_means_stand_alone_and_it_is_said(store: Store) -> None:
    one = evaluation_row(store, "one", {"ground_truth": [4.0, 6.0]})
    gone = {
        **one,
        "run": "gone",
        "input_hash": "0" * 64,
        "artifact_hash": "0" * 64,
        "categories": {"ground_truth": 7.0},
        "overall": 7.5,
    }
    found = joined(store, one, gone, MOVED)
    assert "evaluation of gone is not in the store" in found["how"]
    truth, voice = found["categories"]
    assert (truth["difference"], truth["low"], truth["n"]) == (2.0, None, 0)
    assert (voice["left"], voice["difference"]) == (None, None)
    overall = found["overall"]
    assert (overall["difference"], overall["low"], overall["high"], overall["n"]) == (2.5, None, None, 0)
    assert overall["verdict"] == "not compared question by question"
