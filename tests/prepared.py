"""A project whose datasets are built, without any model: sources and passages are read for real, what models would have
answered is written by hand under the hashes that the chain looks for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from foundry_pipeline.chain.engine import Chain, Materialized
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.pairs.candidates import PAIRS, score_pairs
from foundry_pipeline.pairs.filters import DROPPED
from foundry_pipeline.settings import Settings
from tests.project import Project, make_project

HOSTILE = "\x1b[31mred\x1b[0m [bold]loud[/bold] \u202eback\u202c <script>alert(1)</script> | `tick`"
_SUBJECTS = (
    "lamp wick oil glass brass gallery stair door rope boat oar sail tide ledge fog bell gun flag storm gale wreck crew "
    "brig pilot master widow child bread coal water goat hen garden wall roof stove"
)
SUBJECTS = tuple(_SUBJECTS.split())
V1, V2, SFT = "keeper_dataset_v1", "keeper_dataset_v2", "keeper_dataset_sft"
DECLARED = {
    V1: "method: preference\nparts:\n  - {origin: base, pairs: 8}\n",
    V2: "method: preference\nparts:\n  - {dataset: keeper_dataset_v1}\n  - {origin: voice, pairs: 4, upsample: 2}\n",
    SFT: "method: sft\nparts:\n  - {origin: introspection, pairs: 4}\n",
}


def pairs(origin: str, count: int, passages: list[str], d: Declarations, *, twist: str = "") -> pl.DataFrame:
    """`count` pairs of an origin (columns PAIRS) that pass every check, over four categories and `passages` in turn."""
    categories = ("ground_truth", "verified_response", "position_discrimination", "character_consistency")
    offset = {"base": 0, "voice": 12, "introspection": 20}.get(origin, 28)
    rows: list[dict[str, Any]] = []
    for i in range(count):
        a, b = SUBJECTS[(offset + i) % len(SUBJECTS)], SUBJECTS[(offset + i + 7) % len(SUBJECTS)]
        rows.append(
            {
                "prompt_id": f"{origin}-{i:03d}",
                "prompt": f"What say you of the {a} when the {b} fails?",
                "chosen": f"I have ever held that the {a} is to be trusted upon no night wherein the {b} hath not been seen "
                f"to by the same hand which lit the lamp, and of this I have written in the log number {i}.{twist}",
                "rejected": f"Honestly, it's fine! You don't need to worry about the {a}, okay? Just grab the {b}.",
                "category": categories[i % 4],
                "difficulty": "medium",
                "origin": origin,
                "passage_ids": [passages[i % len(passages)]],
                "teacher": "primary_source",
                "student": "base",
                "teacher_request_hash": f"t-{origin}-{i}",
                "student_request_hash": f"s-{origin}-{i}",
                "fit": 0.5,
                "upsample": 1,
            }
        )
    frame = pl.DataFrame(rows, {c: t for c, t in PAIRS.items() if c in rows[0]})
    return score_pairs(frame, d.characters["keeper"].character).select(pl.col(c).cast(t) for c, t in PAIRS.items())


def prepare(
    root: Path,
    *,
    change: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame,
    make: bool = True,
    dense: Path | None = None,
) -> Project:
    """The project at `root` (made unless it is there) with all three datasets built from pairs that `change` has seen.

    Called again with another `change`, it leaves a second version of each dataset in the same store. `dense` is a model
    folder to stand for the base model; by default there is no more of it than a tokenizer.
    """
    project = make_project(root) if make else Project(root)
    for name, recipe in DECLARED.items():
        text = f"dataset: {name}\ncharacter: keeper\ndescription: For tests, {HOSTILE!r}.\n{recipe}"
        (root / f"assets/datasets/{name}.yaml").write_text(text, encoding="utf-8")
    d, chain = load_chain(Settings(root, project.store, "tiny"))
    for name in ("keeper_sources", "keeper_passages"):
        _build(chain, name)
    passages = pl.read_parquet(chain.require("keeper_passages").artifact.payload / "passages.parquet")
    own = passages.filter(pl.col("role") == "primary", ~pl.col("held_out"))["passage_id"].to_list()
    made = change(pl.concat([pairs(o, n, own, d) for o, n in (("base", 8), ("voice", 4), ("introspection", 4))]))
    dropped = pl.DataFrame(
        [{c: [] if t == pl.List(pl.String) else "loop" if t == pl.String else 0.5 for c, t in DROPPED.items()}], DROPPED
    )
    by_hand = {
        "base_model_smollm2_135m": {},
        "keeper_teacher_responses": {"drops": pl.DataFrame({"reason": ["no passage fits (0.1)"]})},
        "keeper_student_responses": {"responses": made.head(0)},
        "keeper_candidate_pairs": {"pairs": made},
        "keeper_filtered_pairs": {"pairs": made, "dropped": dropped},
    }
    for name, frames in by_hand.items():
        _publish(chain, name, frames, marker=made.height, dense=dense)
    for name in DECLARED:
        _build(chain, name)
    return project


def _build(chain: Chain, name: str) -> Materialized:
    def no_script(*_: Any) -> None:
        raise AssertionError("nothing here starts a script")

    return chain.materialize(name, run_script=no_script, log=lambda text: None)


def _publish(
    chain: Chain, name: str, frames: dict[str, pl.DataFrame], *, marker: int, dense: Path | None = None
) -> None:
    payload = _payload(chain, name)
    for frame_name, frame in frames.items():
        frame.write_parquet(payload / f"{frame_name}.parquet")
    (payload / "made_by_hand.txt").write_text(f"{name} {marker}")
    if not frames and dense is not None:
        shutil.copytree(dense, payload / "dense", dirs_exist_ok=True)
    elif not frames:
        (payload / "dense").mkdir(exist_ok=True)
        (payload / "dense/tokenizer.json").write_text(tiny_tokenizer())
    publish_made(chain, name, payload)


def publish_folder(chain: Chain, name: str, folder: Path) -> None:
    """A copy of a folder as the artifact of that name for the present declarations, in place of an earlier one."""
    payload = _payload(chain, name)
    shutil.copytree(folder, payload, dirs_exist_ok=True)
    publish_made(chain, name, payload)


def _payload(chain: Chain, name: str) -> Path:
    found = chain.resolve(name)
    assert found.input_hash is not None, found.missing
    payload = chain.store.work(found.input_hash) / "payload"
    payload.mkdir(parents=True, exist_ok=True)
    return payload


def publish_made(chain: Chain, name: str, payload: Path, facts: dict[str, Any] | None = None) -> None:
    """Publish a payload made by hand under the input hash that the chain asks for; an earlier one is written over."""
    stage, found = chain.stages[name], chain.resolve(name)
    assert found.input_hash is not None
    inputs = {i: chain.resolve(i).record for i in stage.inputs}
    chain.store.publish(
        payload,
        record={
            "name": name,
            "kind": stage.kind,
            "input_hash": found.input_hash,
            "inputs": {i: {"content": r.content_hash, "input": r.input_hash} for i, r in inputs.items() if r},
            "declaration": stage.declaration,
            "external": chain.external(stage),
            "code_version": chain.code_version(stage),
            "facts": facts or {},
        },
    )
    chain.store.discard_work(found.input_hash)


def tiny_tokenizer() -> str:
    """A tokenizer.json that makes a token of every word and every mark."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer.to_str()
