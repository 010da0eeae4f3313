"""Prices, bounds and the ledger of money: exact, and never beyond a cap, whoever reserves at once."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from foundry_pipeline.declarations.remote import Budget, Price, PriceTable, RemoteService
from foundry_pipeline.errors import DeclarationError, FoundryError
from foundry_pipeline.models.money.estimate import estimate_demand, estimate_requests
from foundry_pipeline.models.money.ledger import (
    Ask,
    Book,
    BudgetReached,
    Caps,
    MoneyLedger,
    reconcile,
)
from foundry_pipeline.models.money.prices import (
    Prices,
    Rate,
    UnknownPrice,
    Usage,
    load_prices,
    rate_of,
    short_usd,
    token_bound,
    usd,
)
from foundry_pipeline.models.money.processes import process_mark, still_at_work, this_node
from foundry_pipeline.models.money.spending import open_spending
from foundry_pipeline.models.requests import ChatRequest
from tests.servers.asking import ask_for

ROOT = Path(__file__).resolve().parents[3]
DOLLAR = 10**12
FIELDS: dict[str, Any] = {
    "provider": "anthropic",
    "model": "m",
    "input": "3",
    "output": "15",
    "cache_write": "3.75",
    "cache_read": "0.3",
    "batch_factor": "0.5",
    "valid_from": "2026-01-01",
    "source": "test",
}
amounts = st.decimals(min_value=0, max_value=1000, places=5, allow_nan=False, allow_infinity=False)
counts = st.integers(0, 10**7)


@given(amounts, amounts, amounts, amounts, counts, counts, counts, counts, st.booleans())
def test_a_cost_is_exact_to_the_last_digit(
    i: Decimal, o: Decimal, w: Decimal, r: Decimal, ni: int, no: int, nw: int, nr: int, batch: bool
) -> None:
    price = Price(**{**FIELDS, "input": i, "output": o, "cache_write": w, "cache_read": r})
    cost = rate_of(price, batch=batch).cost(Usage(ni, no, cache_write=nw, cache_read=nr))
    exact = (
        sum(Fraction(p) * n for p, n in ((i, ni), (o, no), (w, nw), (r, nr))) / 10**6 * (Fraction(1, 2) if batch else 1)
    )
    assert Fraction(cost, DOLLAR) == exact
    assert Fraction(Decimal(usd(cost))) == exact


@given(st.integers(0, 10**16))
def test_dollars_are_written_out_exactly(amount: int) -> None:
    assert Decimal(usd(amount)) * DOLLAR == amount
    assert "e" not in usd(amount).lower()
    assert (Decimal(short_usd(amount)) == 0) == (amount == 0)


def test_a_price_holds_from_its_day_until_the_next() -> None:
    rows = [
        Price(**{**FIELDS, "input": "3", "valid_from": "2026-01-01"}),
        Price(**{**FIELDS, "input": "2", "valid_from": "2026-06-01", "valid_until": "2026-12-31"}),
    ]
    prices = Prices(PriceTable(checked=dt.date(2026, 1, 1), prices=tuple(rows)))
    assert prices.rate("anthropic", "m", dt.date(2026, 5, 31)).input == 3 * 10**6
    assert prices.rate("anthropic", "m", dt.date(2026, 6, 1)).input == 2 * 10**6
    assert prices.rate("anthropic", "m", dt.date(2026, 6, 1), batch=True).input == 10**6
    # After the newer row's last day the older one does not come back to life by itself unless it is still valid.
    assert prices.rate("anthropic", "m", dt.date(2027, 1, 1)).input == 3 * 10**6
    with pytest.raises(UnknownPrice, match="no price of m on 2025-12-31"):
        prices.rate("anthropic", "m", dt.date(2025, 12, 31))
    with pytest.raises(UnknownPrice, match="does not know openai's model 'm'"):
        prices.rate("openai", "m", dt.date(2026, 6, 1))


def test_the_shipped_table_agrees_with_another_record_of_the_same_prices() -> None:
    import genai_prices as genai

    table = load_prices(ROOT / "assets" / "prices.yaml").table
    assert len(table.prices) >= 5
    names = {
        "input": "input_mtok",
        "output": "output_mtok",
        "cache_write": "cache_write_mtok",
        "cache_read": "cache_read_mtok",
    }
    for price in table.prices:
        asked = genai.Usage(input_tokens=1, output_tokens=1)
        when = dt.datetime.combine(price.valid_from, dt.time(), dt.UTC)
        known = genai.calc_price(asked, price.model, provider_id=price.provider, genai_request_timestamp=when)
        assert known.model.id in price.model, "it took the model for another one"
        for mine, theirs in names.items():
            value = getattr(known.model_price, theirs)
            value = getattr(value, "base", value)  # of a price that grows with the prompt the first part
            if value is not None:
                assert getattr(price, mine) == value, (price.model, mine)


def test_the_model_of_the_full_profile_has_a_price() -> None:
    profile = yaml.safe_load((ROOT / "assets" / "profiles" / "full.yaml").read_text())
    prices = load_prices(ROOT / "assets" / "prices.yaml")
    assert prices.price("anthropic", profile["teacher"]["model"], prices.table.checked).output > 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"input": "-1"}, "input"),
        ({"input": "nan"}, "input"),
        ({"output": "0.0000001"}, "whole number of picodollars"),
        ({"valid_until": "2025-01-01"}, "before valid_from"),
        ({"source": ""}, "source"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_price_that_cannot_be_meant_is_refused_by_field(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(yaml.safe_dump({"checked": "2026-01-01", "prices": [{**FIELDS, **changes}]}))
    with pytest.raises(DeclarationError, match=named):
        load_prices(path)


def test_the_same_price_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="two prices of m"):
        PriceTable(checked=dt.date(2026, 1, 1), prices=(Price(**FIELDS), Price(**FIELDS)))


def test_amounts_in_yaml_are_what_was_written() -> None:
    assert Budget.model_validate({"project_usd": 0.1}).project_usd == Decimal("0.1")
    assert Budget.model_validate({"project_usd": 7}).run == 7
    for bad in (-1, float("nan"), float("inf"), "much", 10**9):
        with pytest.raises(ValidationError):
            Budget.model_validate({"project_usd": bad})


def test_an_address_with_a_password_is_refused() -> None:
    for bad in ("http://me:secret@host", "ftp://host", "host:8000", "http://h/?key=1"):
        with pytest.raises(ValidationError):
            RemoteService(base_url=bad)
    assert RemoteService(base_url="http://127.0.0.1:8000/v1/").base_url == "http://127.0.0.1:8000/v1"


@given(st.lists(st.text(min_size=1, max_size=60).filter(str.strip), min_size=1, max_size=4), st.integers(1, 500))
def test_no_request_can_cost_more_than_its_bound(texts: list[str], max_tokens: int) -> None:
    """Whatever a byte-level vocabulary makes of the text, however it is cached, however long the answer is."""
    rate = Rate(input=3, output=15, cache_write=4, cache_read=1, since="")
    request = ChatRequest("r", tuple(("user", t) for t in texts), max_tokens, 0.0, 0, 1.0, 0, system=(("s", True),))
    worst = sum(len(t.encode()) for t in texts) + 1
    bound = rate.bound(prompt_tokens=token_bound(request), answer_tokens=max_tokens, cached=True)
    for write in (0, worst):
        assert rate.cost(Usage(worst - write, max_tokens, cache_write=write)) <= bound


# -- ledger --------------------------------------------------------------------------------------------------------


def book_of(ledger: MoneyLedger, *, project: int = 10, run: int = 10, name: str = "run") -> Book:
    return ledger.book(asset="a", run=name, caps=Caps(project, run))


def ask(amount: int, key: str = "k") -> Ask:
    return Ask(key, amount, "anthropic", "m", "2026-01-01")


def test_what_is_reserved_settled_released_and_doubted_counts_as_it_should(place: Path) -> None:
    ledger = MoneyLedger(place)
    book = book_of(ledger)
    first, second, third = (book.reserve(ask(3, f"k{i}")) for i in range(3))
    with pytest.raises(BudgetReached, match=r"reserved 9.*E-12|reserved .*cap"):
        book.reserve(ask(2))
    book.settle(first, cost=1, usage=Usage(1, 2, 3, 4))
    book.release(second)
    book.doubt(third, "timeout")
    assert ledger.totals().__dict__ == {"spent": 1, "reserved": 0, "uncertain": 3}
    book.reserve(ask(6, "k9"))
    with pytest.raises(BudgetReached, match="--release-uncertain"):
        book.reserve(ask(1))
    assert ledger.release_uncertain().uncertain == 3
    book.reserve(ask(3))
    row = ledger.rows("entry = ?", [first])[0]
    assert (row["input_tokens"], row["output_tokens"], row["cache_write_tokens"], row["cache_read_tokens"]) == (
        1,
        2,
        3,
        4,
    )


def test_a_row_is_closed_once(place: Path) -> None:
    ledger = MoneyLedger(place)
    book = book_of(ledger)
    entry = book.reserve(ask(5))
    book.settle(entry, cost=2, usage=None)
    book.settle(entry, cost=4, usage=None)
    book.release(entry)
    book.doubt(entry, "late")
    assert ledger.totals().__dict__ == {"spent": 2, "reserved": 0, "uncertain": 0}


def test_a_run_has_a_cap_of_its_own(place: Path) -> None:
    ledger = MoneyLedger(place)
    book_of(ledger, run=4, name="one").reserve(ask(4))
    with pytest.raises(BudgetReached, match="the run's budget") as caught:
        book_of(ledger, run=4, name="one").reserve(ask(1))
    assert "run_usd" in caught.value.mend
    book_of(ledger, run=4, name="two").reserve(ask(4))
    with pytest.raises(BudgetReached, match="the project's budget"):
        book_of(ledger, run=4, name="three").reserve(ask(3))


def _spend(path: str, number: int) -> None:
    book = MoneyLedger(Path(path)).book(asset=f"a{number}", run="run", caps=Caps(1000, 1000))
    for i in range(40):
        try:
            entry = book.reserve(ask(30, f"{number}-{i}"))
        except BudgetReached:
            continue
        if i % 3:
            book.settle(entry, cost=20, usage=None)


def test_several_processes_never_reserve_beyond_the_cap(place: Path) -> None:
    MoneyLedger(place)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_spend, args=(str(place), n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    ledger = MoneyLedger(place)
    assert 1000 - 30 < ledger.totals().counted <= 1000
    # Replayed in the order of their reservations, no row was let in that had no room.
    assert len(ledger.rows()) == len({row["entry"] for row in ledger.rows()})


def test_a_killed_process_leaves_its_reservations_counted_until_they_are_released(tmp_path: Path) -> None:
    path = tmp_path / "money.db"
    script = """
import os, signal, sys
from pathlib import Path
from foundry_pipeline.models.money.ledger import Ask, Caps, MoneyLedger
book = MoneyLedger(Path(sys.argv[1])).book(asset="a", run="r", caps=Caps(100, 100))
for key in ("stored", "lost"):
    book.reserve(Ask(key, 40, "anthropic", "m", ""))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    ledger = MoneyLedger(path)
    assert ledger.totals().reserved == 80
    paid = {"stored": (7, Usage(1, 1))}
    assert reconcile(ledger, paid.get) == 1
    assert ledger.totals().__dict__ == {"spent": 7, "reserved": 0, "uncertain": 40}
    with pytest.raises(BudgetReached, match="uncertain"):
        book_of(ledger, project=50, run=50).reserve(ask(10))
    assert reconcile(ledger, paid.get) == 0


def test_rows_of_a_living_process_are_left_alone(place: Path) -> None:
    ledger = MoneyLedger(place)
    book_of(ledger).reserve(ask(3))
    assert reconcile(ledger, lambda key: None) == 0
    assert ledger.totals().reserved == 3
    assert still_at_work(process_mark())
    assert still_at_work(f"{this_node()}:{os.getpid()}:1") is False
    # As marks were before they held more than the name of the machine.
    assert still_at_work(f"{os.uname().nodename}:{os.getpid()}:1") is False
    assert still_at_work("another-machine:1:1") is None


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["settle", "release", "doubt", "keep"]), st.integers(0, 40)))
)
def test_counted_money_never_exceeds_the_cap_while_costs_keep_to_their_bounds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, int]]
) -> None:
    ledger = MoneyLedger(tmp_path_factory.mktemp("ledger") / "money.db")
    book = book_of(ledger, project=100, run=100)
    for amount, what, cost in steps:
        try:
            entry = book.reserve(ask(amount))
        except BudgetReached:
            assert ledger.totals().counted + amount > 100
            continue
        if what == "settle":
            book.settle(entry, cost=min(cost, amount), usage=None)
        elif what != "keep":
            getattr(book, what)(entry, *(["x"] if what == "doubt" else []))
        assert ledger.totals().counted <= 100


def test_a_damaged_or_newer_ledger_is_named(tmp_path: Path) -> None:
    path = tmp_path / "money.db"
    path.write_bytes(b"no pages of a database at all, by a long way" * 100)
    with pytest.raises(FoundryError, match="is damaged"):
        MoneyLedger(path)
    newer = tmp_path / "newer.db"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version=9")
    connection.close()
    with pytest.raises(FoundryError, match="layout 9"):
        MoneyLedger(newer)


def test_the_environment_lowers_a_budget_and_never_raises_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"ledger": str(tmp_path / "m.db"), "prices": "p", "project_usd": "5", "run_usd": "2"}
    assert open_spending(spec).caps == Caps(5 * DOLLAR, 2 * DOLLAR)
    monkeypatch.setenv("FOUNDRY_BUDGET_USD", "3")
    assert open_spending(spec).caps == Caps(3 * DOLLAR, 2 * DOLLAR)
    monkeypatch.setenv("FOUNDRY_BUDGET_USD", "500")
    assert open_spending(spec).caps == Caps(5 * DOLLAR, 2 * DOLLAR)
    for bad in ("lots", "-1", "nan", "1e-40"):
        monkeypatch.setenv("FOUNDRY_BUDGET_USD", bad)
        with pytest.raises(FoundryError, match="no amount of US dollars"):
            open_spending(spec)


# -- estimates -----------------------------------------------------------------------------------------------------


def test_an_estimate_lies_between_its_bounds_and_counts_the_shared_beginning_once() -> None:
    rate = rate_of(Price(**FIELDS), batch=False)
    found = estimate_requests(ask_for(50), rate=rate)
    assert found.requests == 50
    for span in (found.input, found.output, found.cost):
        assert 0 < span.low < span.expected < span.high
    assert found.output.high == 50 * 64
    plain = estimate_requests(ask_for(50, system=False), rate=rate)
    alone = estimate_requests(ask_for(1), rate=rate)
    # Forty-nine times read at a tenth of the price: far below fifty beginnings at full price.
    assert found.cost.expected - plain.cost.expected < 10 * alone.cost.expected
    assert estimate_requests(ask_for(50), rate=rate, mean_answer=3).output.expected == 150
    assert estimate_demand(50, 1000, 64, rate=rate).cost.high == 50 * estimate_demand(1, 1000, 64, rate=rate).cost.high
    assert estimate_requests([], rate=rate).cost.high == 0
