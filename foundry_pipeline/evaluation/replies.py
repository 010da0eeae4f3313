"""Reading a judge's reply: scored, repaired, or unscored with the reason. Nothing is guessed.

    read_reply('{"voice": 8, "rhetorical": 7.5, "historical": 9, "position": 9, "integrity": 10, "overall_score": 8,
                 "critical_failures": [], "justification": "…"}', "end_turn")
    → JudgeReply(status="scored", overall=8.6, raw_overall=8.0, …)

    read_reply('{"voice": 8, "rhetorical": 7', "max_tokens")
    → JudgeReply(status="unscored", reason="cut off (stop_reason max_tokens)", …)

The order matters. Why the reply ended is looked at first: what was cut off or refused is not read at all, however good
it looks. Then strict JSON is tried; only where its syntax fails is it mended (`lenient_json.py`), and the mended text
passes the same strict reading: exactly the known keys, each once, every component a number in [0, 10]. So a score never
rests on a number that the judge did not write, and never on four components of five.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from foundry_pipeline.evaluation.judges import Judgment
from foundry_pipeline.evaluation.lenient_json import Unreadable, mend, whole_text
from foundry_pipeline.evaluation.scoring import COMPONENTS, weighted_overall

OVERALL = "overall_score"
REQUIRED: frozenset[str] = frozenset({*COMPONENTS, "critical_failures", "justification"})
KEYS: frozenset[str] = REQUIRED | {OVERALL}

Status = Literal["scored", "repaired", "unscored"]

# In the words of Claude, of the OpenAI protocol, and of this project's own record (`FinishReason`).
WHOLE = frozenset({"end_turn", "stop_sequence", "stop", "eos", "eos_token"})
CUT = frozenset({"max_tokens", "length", "model_context_window_exceeded", "pause_turn", "max_output_tokens"})
REFUSED = frozenset({"refusal", "content_filter", "safety"})
_SHOWN = 160  # characters of a stranger's text in a reason


@dataclass(frozen=True)
class JudgeReply:
    """What one reply of a judge comes to.

    `reason` says why there is no score, or what was mended; empty for a reply that was read as it came. `mended` is the
    strict JSON that stood in for the reply, None where it needed none.
    """

    status: Status
    reason: str = ""
    components: Mapping[str, float] = field(default_factory=dict)
    raw_overall: float | None = None
    critical_failures: tuple[str, ...] = ()
    justification: str = ""
    mended: str | None = None

    @property
    def overall(self) -> float | None:
        """The weighted mean of the components; the judge's own mark is `raw_overall`."""
        return weighted_overall(self.components) if self.components else None

    def judgment(self) -> Judgment:
        """The same as a judge's verdict on an answer."""
        if self.status == "unscored":
            return Judgment(None, None, None, None, None, unscored=self.reason, justification=self.reason)
        return Judgment(
            voice=self.components["voice"],
            rhetorical=self.components["rhetorical"],
            historical=self.components["historical"],
            position=self.components["position"],
            integrity=self.components["integrity"],
            raw_overall=self.raw_overall,
            critical_failures=self.critical_failures,
            justification=self.justification,
        )


class _Refused(ValueError):
    """Well-formed JSON that is not the reply that was asked for: no mending of its syntax would help."""


def read_reply(text: Any, stop_reason: Any) -> JudgeReply:
    """The reply's reading. Takes anything and raises nothing: what is no text, or ended for no known reason, is unscored."""
    if ended := _not_whole(stop_reason):
        return JudgeReply("unscored", ended)
    if not isinstance(text, str):
        return JudgeReply("unscored", "the reply is no text")
    if not text.strip():
        return JudgeReply("unscored", "the reply is empty")
    try:
        return _reading(_strict(text), "scored")
    except _Refused as error:
        return JudgeReply("unscored", str(error))
    except (ValueError, RecursionError):
        pass  # its syntax fails, which may be mended
    try:
        found = mend(text, KEYS)
        return _reading(_strict(found.text), "repaired", ", ".join(found.repairs), found.text)
    except (Unreadable, _Refused) as error:
        return JudgeReply("unscored", one_line(str(error)))


def _not_whole(stop_reason: Any) -> str:
    """Why a reply that ended so is not to be read; empty where it came to its own end."""
    if not isinstance(stop_reason, str):
        return "nothing says why the reply ended, so it may be cut off"
    if stop_reason in WHOLE:
        return ""
    if stop_reason in CUT:
        return f"cut off (stop_reason {stop_reason})"
    if stop_reason in REFUSED:
        return f"refused (stop_reason {stop_reason})"
    return f"ended for a reason that is not known to leave it whole (stop_reason {one_line(stop_reason)!r})"


def _strict(text: str) -> list[tuple[str, Any]]:
    """The entries of one JSON object, in order. ValueError for what is no JSON, _Refused for JSON that is no such object.

    Numbers become floats whatever their length, so that a number stays apart from true and false.
    """

    def word(name: str) -> None:
        raise _Refused(f"{name} is no number")

    found = json.loads(text, object_pairs_hook=_Entries, parse_constant=word, parse_int=float, parse_float=float)
    if not isinstance(found, _Entries):
        raise _Refused(f"{_kind(found)}, not the object that was asked for")
    return found


class _Entries(list[tuple[str, Any]]):
    """An object's entries as they came, the same key as often as it was there."""


def _kind(value: Any) -> str:
    kinds: dict[type, str] = {
        list: "a list", str: "a text", float: "a number", bool: "true or false", type(None): "null", _Entries: "an object",
    }  # fmt: skip
    return kinds[type(value)]


def _reading(
    entries: Sequence[tuple[str, Any]], status: Status, reason: str = "", mended: str | None = None
) -> JudgeReply:
    """A valid reply's content. Raises _Refused for one that breaks the schema."""
    found = dict(entries)
    if len(found) != len(entries):
        names = [name for name, _ in entries]
        twice = sorted({name for name in names if names.count(name) > 1} if len(names) < 100 else names[:1])
        raise _Refused(f"the field {one_line(twice[0])!r} is there more than once")
    if missing := [name for name in (*COMPONENTS, "critical_failures", "justification") if name not in found]:
        raise _Refused(f"no {', '.join(missing)}")
    if strange := sorted(found.keys() - KEYS):
        raise _Refused(f"unknown field {one_line(', '.join(strange))}")
    scores = {name: _score(name, found[name]) for name in (*COMPONENTS, OVERALL) if name in found}
    failures, justification = found["critical_failures"], found["justification"]
    if type(failures) is not list or not all(isinstance(text, str) for text in failures):
        raise _Refused("critical_failures is no list of texts")
    if not isinstance(justification, str):
        raise _Refused(f"justification is {_kind(justification)}, no text")
    return JudgeReply(
        status,
        reason,
        components={name: scores[name] for name in COMPONENTS},
        raw_overall=scores.get(OVERALL),
        # A blank text names no failure.
        critical_failures=tuple(whole_text(text).strip() for text in failures if text.strip()),
        justification=whole_text(justification).strip(),
        mended=mended,
    )


def _score(name: str, value: Any) -> float:
    if type(value) is not float:
        raise _Refused(f"{name} is {_kind(value)}, no number")
    if not math.isfinite(value) or not 0 <= value <= 10:
        raise _Refused(f"{name} is {value:g}, outside 0 to 10")
    return value + 0.0  # -0 is 0


def one_line(text: str) -> str:
    """A stranger's words on one line, without control characters, and not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _SHOWN]).split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
