"""A judge that is a model: Claude, or any server of the OpenAI protocol that answers by schema.

    judge = ModelJudge(declared, character, constitution, ask)
    judge.prepare([(prompt, answer), …])     # asks for all of them at once, through the response cache
    judge.judge(prompt, answer)              → Judgment

Replies that cannot be read are asked for again, with more room, as often as is declared, and only they are; what is
still unread then is unscored. Each request is known by its body, the repeat and the attempt, so a repeated command finds
every reply in the response cache and pays for none of them twice.

A degenerate answer (empty, or a loop) is not sent: models have given a loop a 7.9. It is scored 0 by rule, with the
critical failure named, which is what it is worth; only an answer that the judge failed to judge is unscored.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from foundry_pipeline.declarations.judging import AnyJudge, OpenAIJudge
from foundry_pipeline.declarations.sources import Character, EvaluationPrompt
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.integrity import repetition_severity
from foundry_pipeline.evaluation.judge_prompt import SCHEMA, answer_block, rubric_block
from foundry_pipeline.evaluation.judges import Judgment, unscored
from foundry_pipeline.evaluation.replies import JudgeReply, read_reply
from foundry_pipeline.evaluation.scoring import COMPONENTS
from foundry_pipeline.lineage.hashing import code_version, digest
from foundry_pipeline.models.remote import remote_ref
from foundry_pipeline.models.remote.service import service_name
from foundry_pipeline.models.requests import ChatRequest, ModelRef, Reply, request_seed
from foundry_pipeline.textstats import words

Ask = Callable[[Sequence[ChatRequest]], list[Reply]]
"""Replies to requests, in their order."""
Item = tuple[EvaluationPrompt, str]

_LEAST_WORDS = 1
_CODE = tuple(
    f"foundry_pipeline.evaluation.{name}" for name in ("judge_prompt", "replies", "lenient_json", "model_judge")
)

RECORDS: dict[str, Any] = {
    "prompt_id": pl.String,
    "answer_hash": pl.String,
    "repeat": pl.Int64,
    "attempt": pl.Int64,
    "max_tokens": pl.Int64,
    "stop_reason": pl.String,
    "status": pl.String,
    "reason": pl.String,
    "reply": pl.String,
    "mended": pl.String,
    "overall": pl.Float64,
    "raw_overall": pl.Float64,
    **dict.fromkeys(COMPONENTS, pl.Float64),
    "critical_failures": pl.List(pl.String),
    "justification": pl.String,
    "request_hash": pl.String,
}
"""One row for each reply: as it came, what it was mended to, and what it came to. Attempts after the first are those
that asked again."""


@dataclass(frozen=True)
class Heard:
    """A reply and its reading. `repeat` and `attempt` count from 0."""

    prompt_id: str
    answer_hash: str
    repeat: int
    attempt: int
    max_tokens: int
    reply: Reply
    read: JudgeReply

    def row(self) -> dict[str, Any]:
        read = self.read
        return {
            "prompt_id": self.prompt_id,
            "answer_hash": self.answer_hash,
            "repeat": self.repeat,
            "attempt": self.attempt,
            "max_tokens": self.max_tokens,
            "stop_reason": self.reply.finish_reason,
            "status": read.status,
            "reason": read.reason,
            "reply": self.reply.text,
            "mended": read.mended,
            "overall": read.overall,
            "raw_overall": read.raw_overall,
            **{name: read.components.get(name) for name in COMPONENTS},
            "critical_failures": list(read.critical_failures),
            "justification": read.justification,
            "request_hash": self.reply.request_hash,
        }


def judge_title(declared: AnyJudge) -> str:
    """The name that stands beside every score: kind and model, such as `claude:claude-sonnet-5-5`."""
    return f"{declared.kind}:{declared.model}"


def judge_ref(declared: AnyJudge) -> ModelRef:
    """The model behind a judge."""
    backend, revision = ("openai", declared.revision) if isinstance(declared, OpenAIJudge) else ("anthropic", "")
    return remote_ref(backend, declared.model, title=judge_title(declared), revision=revision, remote=declared.remote)  # type: ignore[arg-type]


def degenerate(answer: str) -> str:
    """Why an answer is none, before any judge is asked: `empty`, `loop`, or nothing."""
    if len(words(answer)) < _LEAST_WORDS:
        return "empty"
    return "loop" if repetition_severity(answer) == 1 else ""


class ModelJudge:
    """One declared judge for one character.

    `anew` above 0 asks past what was judged before: other requests, other replies. Raises FoundryError where `ask` does.
    """

    def __init__(self, declared: AnyJudge, character: Character, constitution: str, ask: Ask, *, anew: int = 0) -> None:
        self._declared, self._ask, self._anew = declared, ask, anew
        self._system = ((rubric_block(character, constitution), True),)
        self._heard: dict[tuple[str, str], list[Heard]] = {}
        self.caught: Counter[str] = Counter()

    @property
    def name(self) -> str:
        return judge_title(self._declared)

    @cached_property
    def version(self) -> str:
        """16 hex characters over judge, model, effort, repeats, bounds, the rubric with the character, and the code."""
        declared = self._declared.model_dump(mode="json")
        remote = declared.pop("remote")
        known = {
            "judge": declared,
            "asked": {name: remote[name] for name in ("effort", "sampling")},
            "service": service_name(judge_ref(self._declared)),
            "system": [text for text, _ in self._system],
            "schema": SCHEMA,
            "code": code_version(_CODE),
        }
        return digest(known)[:16]

    def requests(self, items: Iterable[Item]) -> list[ChatRequest]:
        """What will be asked first of all for these items, each once: for an estimate of its cost."""
        wanted = self._wanted(items)
        repeats = range(self._declared.repeats)
        return [self._request(prompt, answer, repeat, 0) for prompt, answer in wanted.values() for repeat in repeats]

    def prepare(self, items: Iterable[Item]) -> None:
        """Ask for everything that is not known yet, and again for what cannot be read."""
        wanted = self._wanted(items)
        waiting = [(key, repeat) for key in wanted for repeat in range(self._declared.repeats)]
        for attempt in range(1 + self._declared.rejudgings):
            if not waiting:
                return
            requests = [self._request(*wanted[key], repeat, attempt) for key, repeat in waiting]
            replies = self._ask(requests)
            left = []
            for (key, repeat), request, reply in zip(waiting, requests, replies, strict=True):
                read = read_reply(reply.text, reply.finish_reason)
                prompt, answer = wanted[key]
                heard = Heard(prompt.id, digest(answer), repeat, attempt, request.max_tokens, reply, read)
                self._heard.setdefault(key, []).append(heard)
                if read.status == "unscored":
                    left.append((key, repeat))
            waiting = left

    def judge(self, prompt: EvaluationPrompt, answer: str) -> Judgment:
        if kind := degenerate(answer):
            return _by_rule(kind)
        key = _key(prompt, answer)
        if key not in self._heard:
            self.prepare([(prompt, answer)])
        last: dict[int, JudgeReply] = {heard.repeat: heard.read for heard in self._heard[key]}
        return combined([last[repeat] for repeat in sorted(last)])

    def records(self) -> pl.DataFrame:
        """Every reply that was heard, in an order that does not depend on when it came."""
        rows = [heard.row() for heard_of in self._heard.values() for heard in heard_of]
        frame = pl.DataFrame(rows, schema=RECORDS, orient="row")
        return frame.sort("prompt_id", "answer_hash", "repeat", "attempt")

    def facts(self) -> dict[str, Any]:
        """Counts of what was asked and heard; no part of any hash."""
        every = [heard for heard_of in self._heard.values() for heard in heard_of]
        return {
            "replies": len(every),
            "asked_again": sum(heard.attempt > 0 for heard in every),
            "repaired": sum(heard.read.status == "repaired" for heard in every),
            "not_sent": dict(sorted(self.caught.items())),
        }

    def _wanted(self, items: Iterable[Item]) -> dict[tuple[str, str], Item]:
        """The items that have to be asked for, each once, by their key."""
        wanted: dict[tuple[str, str], Item] = {}
        for prompt, answer in items:
            key = _key(prompt, answer)
            if key in self._heard or key in wanted:
                continue
            if kind := degenerate(answer):
                self.caught[kind] += 1
                continue
            wanted[key] = (prompt, answer)
        return wanted

    def _request(self, prompt: EvaluationPrompt, answer: str, repeat: int, attempt: int) -> ChatRequest:
        declared = self._declared
        answer_hash = digest(answer)[:12]
        return ChatRequest(
            request_id=f"{prompt.id}/{answer_hash}/{repeat}/{attempt}",
            messages=(("user", answer_block(prompt, answer)),),
            max_tokens=declared.rejudge_max_tokens if attempt else declared.max_tokens,
            temperature=declared.temperature if isinstance(declared, OpenAIJudge) else 1.0,
            top_k=0,
            top_p=1.0,
            seed=request_seed(self._anew, f"{repeat}/{attempt}"),
            system=self._system,
            schema=SCHEMA,
        )


def _key(prompt: EvaluationPrompt, answer: str) -> tuple[str, str]:
    # By its text as well: a control may bear the name of a question of the suite.
    return prompt.id, digest([prompt.text, answer])


def _by_rule(kind: str) -> Judgment:
    return Judgment(
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        critical_failures=(kind,),
        justification=f"Scored 0 by rule and not sent to a judge: {kind}.",
    )


def combined(readings: Sequence[JudgeReply]) -> Judgment:
    """One judgment from the last readings of all repeats: the mean of those that are scored.

    A critical failure counts where more than half of them name one; all that they name are listed then. Unscored where
    none is scored.
    """
    scored = [read for read in readings if read.status != "unscored"]
    if not readings:
        raise FoundryError("there is no reading to judge by", where="judging", mend="run the same command again")
    if not scored:
        return unscored(readings[-1].reason)
    if len(readings) == 1:
        return scored[0].judgment()
    means = {name: _mean([read.components[name] for read in scored]) for name in COMPONENTS}
    marks = [read.raw_overall for read in scored if read.raw_overall is not None]
    failing = [read for read in scored if read.critical_failures]
    named = dict.fromkeys(text for read in failing for text in read.critical_failures)
    return Judgment(
        voice=means["voice"],
        rhetorical=means["rhetorical"],
        historical=means["historical"],
        position=means["position"],
        integrity=means["integrity"],
        raw_overall=_mean(marks) if marks else None,
        critical_failures=tuple(named) if 2 * len(failing) > len(scored) else (),
        justification=scored[0].justification,
    )


def _mean(values: Sequence[float]) -> float:
    return round(math.fsum(values) / len(values), 9)
