"""Introspection data for supervised training: reflections, and dialogues of the character with itself.

    reflection   one prompt (a template with a topic) and one answer                       → one row
    dialogue     an opening question, five answers, and between them four questions that   → five rows
                 the same teacher asks as the interlocutor, each from what was said before

A dialogue grows in rounds: a round asks for the next turn of every dialogue that is still going on, so its requests
depend on the answers to the round before. It ends early, and gives no row at all, where a turn cannot be used. Each
row after the first opens with the exchange before it (`with_context`), as a recipe's dialogues do.

Every reply is kept or dropped by rule, and what broke character is counted by the prompt it was asked with: the
original project found that a few prompts (`primary drives`, `slavery`, `a biographical essay`) broke most of theirs.
Offline, the rows of a supervised dataset are the character's own first-person passages instead (`datasets/recipes.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from foundry_pipeline import textstats
from foundry_pipeline.breaks import character_breaks
from foundry_pipeline.declarations.assets import Filters
from foundry_pipeline.declarations.generation import GeneratedTeacher, Introspection, Prompted, Template, Topic
from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.models.requests import ChatRequest, Reply, request_seed
from foundry_pipeline.pairs import Schema
from foundry_pipeline.pairs.candidates import PAIRS, score_pairs
from foundry_pipeline.pairs.overlap import OverlapIndex
from foundry_pipeline.pairs.teachers.frames import PROMPTS, RESPONSES
from foundry_pipeline.pairs.teachers.generated import View, is_structured, teacher_sampling, teacher_title
from foundry_pipeline.pairs.teachers.prompts import SCHEMA, constitution_block, view_block
from foundry_pipeline.pairs.teachers.replies import Answer, Fault, parse_question, parse_reply

ORIGIN = "introspection"
TURNS = 5  # rows of a dialogue
LONGEST_QUESTION = 80  # words of a question in a dialogue
ROWS: Schema = {
    **{name: kind for name, kind in RESPONSES.items() if name != "uses_of_passage"},
    "template": pl.String,
    "topic": pl.String,
    "dialogue": pl.String,
    "turn": pl.Int64,
}
"""`dialogue` and `turn` (from 0) are null in a reflection."""
DROPPED: Schema = {
    "prompt_id": pl.String,
    "form": pl.String,
    "template": pl.String,
    "topic": pl.String,
    "kind": pl.String,
    "reason": pl.String,
    "text": pl.String,
}
BROKEN = "broke_character:"
Ask = Callable[[Sequence[ChatRequest]], list[Reply]]


def with_context(question: str, answer: str, following: str) -> str:
    """The prompt of a dialogue's later row: the exchange before it, then its own question."""
    return f"{question}\n\n{answer}\n\n{following}"


def chosen_prompts(prompted: Prompted, count: int, *, kind: str) -> list[tuple[str, Template, Topic]]:
    """`count` prompts as (id, template, topic): every template in turn, its topics in an order fixed by a hash.

    A smaller count gives a prefix of a larger one. All prompts there are, where `count` asks for more.
    """
    queues = [
        [(t, topic) for topic in sorted(prompted.topics, key=lambda x, t=t: digest([kind, t.id, x.id]))]  # type: ignore[misc]
        for t in prompted.templates
    ]
    in_turn = [queue[i] for i in range(len(prompted.topics)) for queue in queues]
    return [(f"{kind}-{t.id}-{x.id}", t, x) for t, x in in_turn[: max(0, count)]]


def prompt_rows(chosen: Sequence[tuple[str, Template, Topic]]) -> pl.DataFrame:
    """The prompts as a frame of training prompts (columns PROMPTS)."""
    rows = [(i, t.category, "medium", ORIGIN, t.text.replace("{topic}", x.text)) for i, t, x in chosen]
    return pl.DataFrame(rows, PROMPTS, orient="row")


# -- what may stay -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sieve:
    """What a text of the character must not have; the same thresholds as the filter of the pairs."""

    character: Character
    filters: Filters
    suite: OverlapIndex
    held_out: OverlapIndex

    def fault(self, text: str) -> Fault | None:
        """The first thing that a generated text must be dropped for."""
        if found := character_breaks(self.character, text):
            kind, words = found[0]
            return Fault(BROKEN + kind, f"breaks character ({kind}): {words}")
        for name, count, most in (
            ("markdown", textstats.markdown_marks(text), 0),
            ("contractions", textstats.contractions(text), self.filters.max_chosen_contractions),
            ("modern_idiom", len(textstats.modern_idiom(text)), 0),
        ):
            if count > most:
                return Fault(name, f"{name.replace('_', ' ')}: {count}, more than {most}")
        if (share := textstats.repetition(text)) > self.filters.max_repetition:
            return Fault("loop", f"{share:.0%} of the 4-grams are repeated")
        for name, index in (("suite_overlap", self.suite), ("held_out_overlap", self.held_out)):
            if shared := index.longest(text):
                return Fault(name, f"shares {shared} words in a row with a text that it must not know")
        return None


@dataclass
class Outcome:
    """Rows (ROWS), what was dropped (DROPPED), and how much was asked by template."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[tuple[str, str, str, str, str, str, str]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def drop(self, prompt_id: str, form: str, template: str, topic: str, fault: Fault, text: str) -> None:
        self.dropped.append((prompt_id, form, template, topic, fault.kind, fault.reason, text))

    def frames(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        return (
            pl.DataFrame(self.rows, ROWS).sort("prompt_id"),
            pl.DataFrame(self.dropped, DROPPED, orient="row").sort("prompt_id"),
        )

    def by_prompt(self) -> dict[str, dict[str, Any]]:
        """`form/template` → how many were asked and kept, and how many broke character, with the share."""
        out: dict[str, dict[str, Any]] = {}
        for form, template in sorted(set(self.asked)):
            asked = self.asked.count((form, template))
            gone = [row[4] for row in self.dropped if (row[1], row[2]) == (form, template)]
            broken = sum(kind.startswith(BROKEN) for kind in gone)
            out[f"{form}/{template}"] = {
                "asked": asked,
                "kept": asked - len(gone),
                "broke_character": broken,
                "share_broken": round(broken / asked, 4),
            }
        return out


def _row(view: View, text: str, passages: Sequence[int], teacher: str, request_hash: str) -> dict[str, Any]:
    used = [view.shown[n - 1] for n in passages]
    return {
        "prompt_id": view.prompt_id,
        "origin": ORIGIN,
        "category": view.category,
        "difficulty": view.difficulty,
        "prompt": view.prompt,
        "chosen": text,
        "passage_ids": [s.passage_id for s in used],
        "fit": max((s.fit for s in used), default=None),
        "teacher": teacher,
        "teacher_request_hash": request_hash,
    }


# -- reflections -------------------------------------------------------------------------------------------------------


def reflections(
    chosen: Sequence[tuple[str, Template, Topic]],
    views: Sequence[View],
    replies: Sequence[Reply],
    teacher: GeneratedTeacher,
    sieve: Sieve,
    outcome: Outcome,
) -> None:
    """Read the replies to the reflections' requests (`generated.teacher_requests`, in the order of `views`)."""
    named = {i: (t.id, x.id) for i, t, x in chosen}
    said: set[tuple[str, ...]] = set()
    for view, reply in zip(views, replies, strict=True):
        template, topic = named[view.prompt_id]
        outcome.asked.append(("reflection", template))
        got = _read(reply, view, teacher)
        fault = got if isinstance(got, Fault) else sieve.fault(got.text)
        words = () if isinstance(got, Fault) else tuple(textstats.words(got.text))
        if fault is None and words in said:
            fault = Fault("exact_duplicate", "says what another reflection says")
        if fault is not None or isinstance(got, Fault):
            assert fault is not None
            outcome.drop(view.prompt_id, "reflection", template, topic, fault, reply.text)
            continue
        said.add(words)
        row = _row(view, got.text, got.passages, teacher_title(teacher), reply.request_hash)
        outcome.rows.append({**row, "template": template, "topic": topic, "dialogue": None, "turn": None})


def _read(reply: Reply, view: View, teacher: GeneratedTeacher) -> Answer | Fault:
    return parse_reply(
        reply.text,
        reply.finish_reason,
        shown=len(view.shown),
        bounds=(teacher.min_words, teacher.max_words),
        needs_passage=view.needs_passage,
        structured=is_structured(teacher),
    )


# -- dialogues ---------------------------------------------------------------------------------------------------------


@dataclass
class Dialogue:
    """One dialogue as far as it has come: the exchanges so far, and the question that waits for its answer."""

    view: View
    template: str
    topic: str
    question: str
    turns: list[tuple[str, Answer, str]] = field(default_factory=list)
    fault: Fault | None = None
    spoilt: str = ""

    @property
    def going_on(self) -> bool:
        return self.fault is None and len(self.turns) < TURNS

    def fail(self, fault: Fault, text: str) -> None:
        self.fault, self.spoilt = fault, text


def interlocutor_block(character: Character, constitution: str, interlocutor: str) -> str:
    """The instructions of the one who asks."""
    return (
        f"You keep up a conversation with {character.name}, whose constitution stands below. {interlocutor.strip()}\n\n"
        f"<constitution>\n{constitution.strip()}\n</constitution>\n\n"
        f"Ask one question at a time, of at most {LONGEST_QUESTION} words, in the language of that time, which follows "
        "from what was last said and goes further. Reply with the question alone."
    )


def question_request(
    dialogue: Dialogue, teacher: GeneratedTeacher, character: Character, constitution: str, interlocutor: str
) -> ChatRequest:
    """The request for the next question: the conversation seen from the interlocutor's side."""
    sampling = teacher_sampling(teacher)
    messages: list[tuple[str, str]] = [("user", "Open the conversation.")]
    for question, answer, _ in dialogue.turns:
        messages += [("assistant", question), ("user", answer.text)]
    name = f"{dialogue.view.prompt_id}-q{len(dialogue.turns)}"
    return ChatRequest(
        request_id=name,
        messages=tuple(messages),
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        seed=request_seed(sampling.seed, name),
        system=((interlocutor_block(character, constitution, interlocutor), True),),
    )


def answer_request(
    dialogue: Dialogue, teacher: GeneratedTeacher, character: Character, constitution: str
) -> ChatRequest:
    """The request for the next answer. Constitution and passages stay through all turns: both are worth caching."""
    sampling, structured = teacher_sampling(teacher), is_structured(teacher)
    messages: list[tuple[str, str]] = []
    for question, answer, _ in dialogue.turns:
        messages += [("user", question), ("assistant", answer.text)]
    name = f"{dialogue.view.prompt_id}-a{len(dialogue.turns)}"
    return ChatRequest(
        request_id=name,
        messages=(*messages, ("user", dialogue.question)),
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        seed=request_seed(sampling.seed, name),
        system=(
            (constitution_block(character, constitution, teacher, structured=structured), True),
            (view_block(ORIGIN, dialogue.view.shown), True),
        ),
        schema=SCHEMA if structured else "",
    )


def dialogues(
    chosen: Sequence[tuple[str, Template, Topic]],
    views: Sequence[View],
    ask: Ask,
    teacher: GeneratedTeacher,
    character: Character,
    constitution: str,
    declared: Introspection,
    sieve: Sieve,
    outcome: Outcome,
) -> None:
    """Lead one dialogue from each view to its end, in rounds; `ask` answers the requests of a round, in their order."""
    named = {i: (t.id, x.id) for i, t, x in chosen}
    all_of_them = [Dialogue(view, *named[view.prompt_id], question=view.prompt) for view in views]
    for turn in range(TURNS):
        live = [d for d in all_of_them if d.going_on]
        if turn and live:
            asked = [question_request(d, teacher, character, constitution, declared.interlocutor) for d in live]
            for dialogue, reply in zip(live, ask(asked), strict=True):
                question = parse_question(reply.text, reply.finish_reason, most=LONGEST_QUESTION)
                fault = question if isinstance(question, Fault) else sieve.fault(question)
                if fault is not None or isinstance(question, Fault):
                    assert fault is not None
                    dialogue.fail(fault, reply.text)
                else:
                    dialogue.question = question
            live = [d for d in live if d.going_on]
        if not live:
            break
        for dialogue, reply in zip(
            live, ask([answer_request(d, teacher, character, constitution) for d in live]), strict=True
        ):
            got = _read(reply, dialogue.view, teacher)
            fault = got if isinstance(got, Fault) else sieve.fault(got.text)
            if fault is not None or isinstance(got, Fault):
                assert fault is not None
                dialogue.fail(fault, reply.text)
            else:
                dialogue.turns.append((dialogue.question, got, reply.request_hash))
    for dialogue in all_of_them:
        outcome.asked.append(("dialogue", dialogue.template))
        if dialogue.fault is not None:
            told = Fault(dialogue.fault.kind, f"turn {len(dialogue.turns) + 1}: {dialogue.fault.reason}")
            outcome.drop(dialogue.view.prompt_id, "dialogue", dialogue.template, dialogue.topic, told, dialogue.spoilt)
        else:
            outcome.rows += dialogue_rows(dialogue, teacher_title(teacher))


def dialogue_rows(dialogue: Dialogue, teacher: str) -> list[dict[str, Any]]:
    """A whole dialogue as its rows: each prompt but the first opens with the exchange before it."""
    rows = []
    for turn, (question, answer, request_hash) in enumerate(dialogue.turns):
        before = dialogue.turns[turn - 1] if turn else None
        prompt = with_context(before[0], before[1].text, question) if before else question
        row = _row(dialogue.view, answer.text, answer.passages, teacher, request_hash)
        rows.append(
            {
                **row,
                "prompt_id": f"{dialogue.view.prompt_id}-{turn}",
                "prompt": prompt,
                "template": dialogue.template,
                "topic": dialogue.topic,
                "dialogue": dialogue.view.prompt_id,
                "turn": turn,
            }
        )
    return rows


# -- into a dataset ----------------------------------------------------------------------------------------------------


def as_pairs(rows: pl.DataFrame, character: Character) -> pl.DataFrame:
    """Rows (columns ROWS) as supervised pairs without a rejected side: columns PAIRS, dialogue and turn."""
    empty = {c: pl.lit(None, PAIRS[c]) for c in ("rejected", "student", "student_request_hash")}
    scored = score_pairs(rows.with_columns(**empty, upsample=pl.lit(1, pl.Int64)), character)
    return scored.select(*(pl.col(c).cast(t) for c, t in PAIRS.items()), "dialogue", "turn")


def whole_dialogues(pairs: pl.DataFrame, turns: int) -> list[pl.DataFrame]:
    """The dialogues in a frame of `as_pairs` that have `turns` rows, each in its order, in an order fixed by a hash."""
    spoken = pairs.filter(pl.col("dialogue").is_not_null() & (pl.col("turn") < turns)).sort("dialogue", "turn")
    whole = [d for d in spoken.partition_by("dialogue", maintain_order=True) if d.height == turns]
    return sorted(whole, key=lambda d: digest(["dialogue", d["dialogue"].item(0)]))
