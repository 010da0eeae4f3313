"""A file of judges' replies, line by line: every line gets its answer, and a bad line takes no other with it.

    {"id": "gt-01", "stop_reason": "end_turn", "text": "{\\"voice\\": 8, …}"}
    → {"id": "gt-01", "status": "scored", "overall": 8.6, "reason": null}

    {"id": "gt-02", "stop_re
    → {"id": null, "status": "unscored", "overall": null, "reason": "line 2 of the file is no JSON object: …", "line": 2}

`line` is there on bad lines only, since such a line may have no id that could be trusted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from foundry_pipeline.evaluation.replies import COMPONENTS, JudgeReply, one_line, read_reply

FIELDS = ("id", "stop_reason", "text")


class _BadLine(ValueError):
    """Why a line of the file is not a reply."""


def read_lines(lines: Iterable[bytes], *, details: bool = False) -> Iterator[dict[str, Any]]:
    """One row for each line that is not blank, in their order. Raises nothing for whatever the lines hold.

    With `details` a row also has the components, the judge's own overall mark, what it calls critical failures, and the
    strict JSON that was read where the reply had to be mended.
    """
    for number, raw in enumerate(lines, 1):
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if not raw.strip():
            continue
        try:
            line = _line(raw)
        except _BadLine as error:
            reason = f"line {number} of the file {one_line(str(error))}"
            yield {"id": None, "status": "unscored", "overall": None, "reason": reason, "line": number}
            continue
        yield row(line["id"], read_reply(line["text"], line["stop_reason"]), details=details)


def row(identifier: Any, reply: JudgeReply, *, details: bool = False) -> dict[str, Any]:
    """What is printed of one reply."""
    told = {"id": identifier, "status": reply.status, "overall": reply.overall, "reason": reply.reason or None}
    if details:
        told |= {name: reply.components.get(name) for name in COMPONENTS}
        told |= {"raw_overall": reply.raw_overall, "critical_failures": list(reply.critical_failures)}
        told["mended"] = reply.mended
    return told


def _line(raw: bytes) -> dict[str, Any]:
    """The three fields of a line. Raises _BadLine."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise _BadLine("has a field twice")
        return found

    def word(name: str) -> None:
        raise _BadLine(f"holds {name}, which is no JSON")

    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=word)
    except UnicodeDecodeError as error:
        raise _BadLine(f"is not UTF-8: {error.reason} at byte {error.start}") from error
    except _BadLine:
        raise
    except (ValueError, RecursionError) as error:
        raise _BadLine(f"is no JSON object: {error}") from error
    if not isinstance(found, dict):
        raise _BadLine(f"is no JSON object but {one_line(json.dumps(found))}")
    if missing := [name for name in FIELDS if name not in found]:
        raise _BadLine(f"has no {', '.join(missing)}")
    identifier = found["id"]
    if isinstance(identifier, list | dict) or (isinstance(identifier, float) and not math.isfinite(identifier)):
        raise _BadLine("has an id that is neither a text nor a number")
    return found
