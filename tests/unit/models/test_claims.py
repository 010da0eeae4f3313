"""Claims on requests: one process asks, the others wait; what a dead one held lapses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from foundry_pipeline.models.money.claims import LEASE_SECONDS, Elsewhere, clock
from foundry_pipeline.models.money.ledger import Ask, Book, Caps, MoneyLedger

FOREIGN = "another-machine/0123456789ab/4026531836:77:1"


def book(ledger: MoneyLedger) -> Book:
    return ledger.book(asset="a", run="r", caps=Caps(100, 100))


def ask(key: str) -> Ask:
    return Ask(key, 1, "anthropic", "m", "2026-01-01", 300.0)


def foreign(ledger: MoneyLedger, key: str, *, silent: float, left: float, batch: str = "") -> None:
    """A claim of a process on another machine, last heard of `silent` seconds ago, whose request has `left` to end."""
    with ledger.connection() as connection:
        now = clock(connection)
        connection.execute(
            "INSERT INTO workers VALUES (?, ?) ON CONFLICT (process) DO UPDATE SET seen = excluded.seen",
            [FOREIGN, now - silent],
        )
        connection.execute(
            "INSERT INTO claims VALUES (?, ?, ?, ?, ?)", [key, f"{FOREIGN}#1", FOREIGN, batch, now + left]
        )


def test_a_request_is_claimed_by_one_and_free_again_when_it_is_dropped(place: Path) -> None:
    ledger = MoneyLedger(place)
    one, two = book(ledger).claims, book(ledger).claims
    assert one.take(["a", "b"], seconds=300) == []
    assert one.take(["a"], seconds=300) == []
    held = two.take(["b", "c", "a"], seconds=300)
    assert [(h.request_hash, h.at_work) for h in held] == [("a", True), ("b", True)]
    one.drop(["a"])
    assert [h.request_hash for h in two.held(["a", "b", "c"])] == ["b"]
    assert two.take(["a"], seconds=300) == []
    with one.kept():
        pass
    assert two.take(["b"], seconds=300) == []


def test_the_claim_of_a_killed_process_lapses_at_once(place: Path) -> None:
    ledger = MoneyLedger(place)
    script = """
import os, signal, sys
from pathlib import Path
from foundry_pipeline.models.money.ledger import Caps, MoneyLedger
claims = MoneyLedger(Path(sys.argv[1])).book(asset="a", run="r", caps=Caps(1, 1)).claims
assert claims.take(["a"], seconds=300) == []
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script, str(place)], env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL
    assert book(ledger).claims.take(["a"], seconds=300) == []


def test_a_claim_from_elsewhere_lapses_when_its_process_is_silent_and_its_request_over(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other machines use no SQLite file of ours, but containers of this one do.
    monkeypatch.setattr("foundry_pipeline.models.money.claims.this_boot", lambda: "0123456789ab")
    ledger, mine = MoneyLedger(place), None
    silent, over = LEASE_SECONDS + 1, -1.0
    foreign(ledger, "heard of", silent=1, left=over)
    mine = book(ledger).claims
    assert [h.at_work for h in mine.take(["heard of"], seconds=1)] == [True]
    foreign(ledger, "under way", silent=silent, left=60)
    assert [h.at_work for h in mine.take(["under way"], seconds=1)] == [False]
    foreign(ledger, "over", silent=silent, left=over)
    foreign(ledger, "in a batch", silent=silent, left=over, batch="b1")
    assert [(h.request_hash, h.batch) for h in mine.take(["over", "in a batch"], seconds=1)] == [("in a batch", "b1")]


def test_of_several_that_see_a_claim_lapse_one_takes_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foundry_pipeline.models.money.claims.this_boot", lambda: "0123456789ab")
    ledger = MoneyLedger(place)
    foreign(ledger, "a", silent=LEASE_SECONDS + 1, left=-1)
    takers = [book(ledger).claims for _ in range(3)]
    assert [len(claims.take(["a"], seconds=300)) for claims in takers] == [0, 1, 1]


def test_nothing_is_reserved_and_so_nothing_sent_under_a_claim_that_is_lost(place: Path) -> None:
    ledger = MoneyLedger(place)
    mine = book(ledger)
    mine.claims.take(["a", "b"], seconds=300)
    with ledger.connection() as connection:
        connection.execute("UPDATE claims SET owner = 'x', process = ? WHERE request_hash = 'a'", [FOREIGN])
    with pytest.raises(Elsewhere):
        mine.reserve(ask("a"))
    assert list(mine.reserve_many([ask("a"), ask("b")])) == ["b"]
    assert ledger.totals().reserved == 1


def test_rows_of_a_machine_that_is_not_heard_of_become_uncertain(place: Path) -> None:
    from foundry_pipeline.models.money.ledger import reconcile

    ledger = MoneyLedger(place)
    book(ledger).reserve(ask("a"))
    with ledger.connection() as connection:
        connection.execute("UPDATE entries SET process = ?", ["another-machine:1:1"])
    assert reconcile(ledger, lambda key: None) == 1
    assert ledger.totals().uncertain == 1
