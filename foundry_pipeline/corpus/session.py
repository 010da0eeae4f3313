"""One refresh of one source: what a connector asks through, and what came of it.

>>> session.text("letter", "https://example.org/letter.txt")
>>> [(o.key, o.state, o.requests) for o in report.outcomes]
[('letter', 'unchanged', 1)]
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from foundry_pipeline.corpus.addresses import FetchError
from foundry_pipeline.corpus.fetch import Answer, Expect, Fetcher, NoAnswer
from foundry_pipeline.corpus.pace import Refused
from foundry_pipeline.corpus.snapshot import Fetched, Snapshot
from foundry_pipeline.errors import FoundryError

State = Literal["new", "unchanged", "changed", "vanished", "failed", "left out"]
UNREACHABLE = 3  # documents in a row without any answer, after all their retries: the host is not asked for the rest


@dataclass(frozen=True)
class Outcome:
    """What came of one document (or list); `note` says why, or since when."""

    key: str
    state: State
    requests: int
    url: str = ""
    note: str = ""


@dataclass
class Report:
    """What a refresh of one source did. `error` is what stopped it; without one and without a failure it is whole."""

    source: str
    outcomes: list[Outcome] = field(default_factory=list)
    requests: int = 0
    seconds: float = 0.0
    error: FoundryError | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None or any(o.state == "failed" for o in self.outcomes)

    @property
    def counts(self) -> dict[str, int]:
        states: tuple[State, ...] = ("new", "changed", "unchanged", "vanished", "left out", "failed")
        return {s: sum(o.state == s for o in self.outcomes) for s in states}

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "counts": self.counts,
            "requests": self.requests,
            "seconds": round(self.seconds, 3),
            "failed": self.failed,
            "error": None if self.error is None else str(self.error),
            "documents": [asdict(o) for o in self.outcomes],
        }


class Session:
    """What a connector asks through: `list_` for pages that lead to texts, `text` for the texts themselves.

    A failed text is noted and the next one asked; a failed list, or a host that refuses, ends the refresh.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        fetcher: Fetcher,
        incoming: Path,
        since: str,
        report: Report,
        say: Callable[[str], None],
    ) -> None:
        self.snapshot = snapshot
        self.keys: list[str] = []
        self.left_out: dict[str, str] = {}
        self._fetcher, self._incoming, self._since, self._report, self._say = fetcher, incoming, since, report, say
        self._silent = 0
        self._seen: set[str] = set()

    def list_(self, key: str, url: str, *, expect: Expect = "json") -> bytes:
        """The content of a page that leads to texts, asked for conditionally like any other. Raises FetchError."""
        old = self.snapshot.record(key)
        answer = self._ask(old, url, expect)
        if answer is not None and answer.status == "vanished":
            raise FetchError(
                "the list of documents is not there (404)", where=url, mend="correct the address of the list"
            )
        record = old if answer is None else self._store(key, url, "list", old, answer, {})
        assert record is not None
        return self.snapshot.data(record)

    def text(
        self,
        key: str,
        url: str,
        *,
        expect: Expect = "any",
        facts: Mapping[str, Any] | None = None,
        listed: bool = False,
    ) -> None:
        """One document, part of the source from now on.

        `listed` says that a list named it: one that is not there is then left out instead of failing the refresh.
        """
        self.first_of(key, [url], expect=expect, facts=facts, listed=listed)

    def first_of(
        self,
        key: str,
        urls: Sequence[str],
        *,
        expect: Expect = "any",
        facts: Mapping[str, Any] | None = None,
        listed: bool = False,
    ) -> None:
        """One document that lies at the first of several addresses which has it."""
        if key in self._seen:
            return
        self._seen.add(key)
        before, old, url = self._fetcher.requests, self.snapshot.record(key), urls[0]
        answer: Answer | None = None
        try:
            for url in urls:
                answer = self._ask(old, url, expect)
                if answer is None or answer.status != "vanished":
                    break
        except Refused:
            raise
        except FetchError as error:
            note = f"{error.what}; {error.mend}"
            self._note(Outcome(key, "failed", self._fetcher.requests - before, url, note))
            self._silent = self._silent + 1 if isinstance(error, NoAnswer) else 0
            if self._silent >= UNREACHABLE:
                raise Refused(
                    f"{self._silent} documents in a row had no answer; the rest was not asked for",
                    where=url,
                    mend=f"see whether the server answers, then: {self.snapshot.command}",
                ) from error
            return
        self._silent = 0
        used = self._fetcher.requests - before
        if answer is None:
            assert old is not None
            self.keys.append(key)
            self.snapshot.keep(replace(old, facts=dict(facts or {})))
            self._note(Outcome(key, "unchanged", used, url, "asked before this refresh was cut short"))
        elif answer.status == "vanished":
            self._vanished(key, old, used, url, listed)
        else:
            self.keys.append(key)
            record = self._store(key, url, "text", old, answer, dict(facts or {}))
            same = old is not None and old.sha256 == record.sha256
            state: State = "unchanged" if same else "changed" if old is not None and old.sha256 else "new"
            back = "back again" if old is not None and old.status == "vanished" else ""
            self._note(Outcome(key, state, used, url, back))

    def fail(self, key: str, why: str) -> None:
        """Note a declared document that cannot be had."""
        self._note(Outcome(key, "failed", 0, "", why))

    def leave_out(self, key: str, why: str) -> None:
        """Note a document that the source's list names and that is not read."""
        self.left_out[key] = why
        self._note(Outcome(key, "left out", 0, "", why))

    def gone_from_list(self, keys: list[str]) -> None:
        """Documents that a former list named and this one does not: kept and marked."""
        for key in keys:
            old = self.snapshot.record(key)
            if key in self.keys or key in self.left_out or old is None or not old.sha256:
                continue
            self.keys.append(key)
            record = self.snapshot.vanish(old, now())
            self._note(Outcome(key, "vanished", 0, old.url, f"no longer listed since {record.vanished_at}; text kept"))

    # -- one request ---------------------------------------------------------------------------------------------

    def _ask(self, old: Fetched | None, url: str, expect: Expect) -> Answer | None:
        """The server's answer, asked for conditionally; None where it was asked earlier in this same refresh."""
        held = old if old is not None and old.url == url and self.snapshot.intact(old) else None
        if held is not None and held.status == "present" and self._since and held.checked_at >= self._since:
            return None
        return self._fetcher.get(
            url,
            into=self._incoming / uuid.uuid4().hex,
            etag=held.etag if held else "",
            last_modified=held.last_modified if held else "",
            expect=expect,
        )

    def _store(
        self,
        key: str,
        url: str,
        kind: Literal["text", "list"],
        old: Fetched | None,
        answer: Answer,
        facts: dict[str, Any],
    ) -> Fetched:
        at = now()
        if answer.status == "unchanged":
            assert old is not None
            return self.snapshot.keep(replace(old, status="present", checked_at=at, vanished_at="", facts=facts))
        assert answer.path is not None
        same = old is not None and old.sha256 == answer.sha256
        record = Fetched(
            key=key,
            url=url,
            kind=kind,
            status="present",
            checked_at=at,
            fetched_at=old.fetched_at if same and old is not None else at,
            final_url=answer.final_url,
            sha256=answer.sha256,
            bytes=answer.bytes,
            content_type=answer.content_type,
            etag=answer.etag,
            last_modified=answer.last_modified,
            facts=facts,
        )
        return self.snapshot.keep(record, answer.path)

    def _vanished(self, key: str, old: Fetched | None, used: int, url: str, listed: bool) -> None:
        if old is not None and old.sha256:
            record = self.snapshot.vanish(old, now())
            self.keys.append(key)
            note = f"not there since {record.vanished_at}; text of {record.fetched_at} kept"
            self._note(Outcome(key, "vanished", used, url, note))
        elif listed:
            self.left_out[key] = "listed, but not there (404)"
            self._note(Outcome(key, "left out", used, url, self.left_out[key]))
        else:
            self._note(Outcome(key, "failed", used, url, "not there (404), and never fetched before"))

    def _note(self, outcome: Outcome) -> None:
        self._report.outcomes.append(outcome)
        note = f": {outcome.note}" if outcome.note else ""
        self._say(f"{outcome.state:<9} {outcome.key}{note}")


def now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
