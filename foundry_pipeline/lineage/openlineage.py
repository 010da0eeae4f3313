"""A trace as OpenLineage run events, for catalogues that read that format (Marquez, DataHub, …).

    for line in event_lines(trace): …          # one JSON object a line, START and COMPLETE of each build
    {"eventType": "COMPLETE", "job": {"name": "madison_dataset_v6", …}, "inputs": […], "outputs": […], …}

A build is a run, its asset the job, its artifact the output dataset with the content hash as version; what it was made
from are its inputs, those of the first builds the documents that pairs quote. Run ids follow from the build, so the same
trace told twice is the same events. Specification: https://openlineage.io/docs/spec/object-model, classes of its own
Python client.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.trace import Node, Trace

NAMESPACE = "foundry"
PRODUCER = "urn:foundry:pipeline"


def event_lines(trace: Trace) -> Iterator[str]:
    """Two events for each artifact, sources first, so that every input has been an output before. Each ends in a newline.

    Raises FoundryError for a build that does not say when it was made.
    """
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import job_type_job
    from openlineage.client.serde import Serde
    from openlineage.client.uuid import generate_static_uuid

    for node in _sources_first(trace.nodes):
        started, ended = _times(node)
        run = Run(str(generate_static_uuid(ended, f"{node.input_hash} {node.content_hash}".encode())))
        kind = job_type_job.JobTypeJobFacet(
            processingType="BATCH", integration="FOUNDRY", jobType=node.kind.upper(), producer=PRODUCER
        )
        job = Job(NAMESPACE, node.name, {"jobType": kind})
        inputs = _inputs(node, trace)
        for state, when in ((RunState.START, started), (RunState.COMPLETE, ended)):
            event = RunEvent(
                eventType=state,
                eventTime=when.isoformat(),
                producer=PRODUCER,
                run=run,
                job=job,
                inputs=inputs,
                outputs=[_output(node, trace)] if state is RunState.COMPLETE else [],
            )
            yield Serde.to_json(event) + "\n"


def _sources_first(nodes: list[Node]) -> list[Node]:
    by_content = {node.content_hash: node for node in nodes}
    out: dict[int, Node] = {}
    waiting = [(node, False) for node in reversed(nodes)]
    entered: set[int] = set()
    while waiting:  # no recursion: a chain may be of any length
        node, done = waiting.pop()
        if done:
            out[id(node)] = node
        elif id(node) not in entered:
            entered.add(id(node))
            waiting.append((node, True))
            waiting += [(by_content[c], False) for c in node.input_contents.values() if c in by_content]
    return list(out.values())


def _times(node: Node) -> tuple[dt.datetime, dt.datetime]:
    try:
        ended = dt.datetime.fromisoformat(str(node.facts["built_at"]))
        ended = ended.replace(tzinfo=dt.UTC) if ended.tzinfo is None else ended
        return ended - dt.timedelta(seconds=float(node.facts.get("build_seconds", 0.0))), ended
    except (KeyError, ValueError, TypeError, OverflowError):
        raise FoundryError(
            f"{node.name} ({node.content_hash[:12]}) does not say when it was built; an event needs a time",
            where="its line in the store's index",
            mend=f"foundry trace {node.name}  # shows the way without events",
        ) from None


def _version(content: str) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset

    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(content, producer=PRODUCER)}


def _inputs(node: Node, trace: Trace) -> list[Any]:
    from openlineage.client.event_v2 import InputDataset

    named = list(node.input_contents.items())
    if node.kind == "sources":
        named = [(f"document/{row['document_id']}", str(row["raw_sha256"])) for row in trace.documents]
    return [InputDataset(NAMESPACE, name, facets=_version(content)) for name, content in named]


def _output(node: Node, trace: Trace) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import tags_dataset

    facets = _version(node.content_hash)
    told = {"input_hash": node.input_hash, "code_version": node.code_version}
    if node is trace.nodes[0]:
        for score in trace.scores:
            name = f"score.{score['mode']}.{score['judge']}"
            told |= {name: str(score["overall"]), f"{name}.id": score["score_id"]}
    fields = [tags_dataset.TagsDatasetFacetFields(key, value, "FOUNDRY") for key, value in told.items()]
    facets["tags"] = tags_dataset.TagsDatasetFacet(fields, producer=PRODUCER)
    return OutputDataset(NAMESPACE, node.name, facets=facets)
