"""What an asset will cost (`estimate`) and what was paid (`costs`), along the chain.

    estimate(d, chain, "madison_dataset_v6")
    → {"asset": …, "prices_checked": "2026-11-21", "stages": [{"stage": …, "requests": 225, "usd": {"low": …}, …}], …}

Remote models only: time on one's own machines, or on rented ones, is not in it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

from foundry_pipeline.chain.engine import Chain, Resolved
from foundry_pipeline.chain.stage import Stage
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.remote import picodollars
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.database import is_there
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.money.estimate import Estimate, Span, estimate_demand, estimate_requests, mean_answer
from foundry_pipeline.models.money.ledger import Caps, MoneyLedger
from foundry_pipeline.models.money.prices import FREE, PRICES, Prices, Rate, load_prices, usd
from foundry_pipeline.models.money.spending import lowered, profile_budget
from foundry_pipeline.models.remote.client import request_key
from foundry_pipeline.models.requests import ChatRequest, ModelRef

NOTHING = Estimate()


def upstream(chain: Chain, asset: str) -> list[str]:
    """The asset and everything it is made from, each after its inputs. Raises FoundryError for an unknown asset."""
    if asset not in chain.stages:
        import difflib

        close = difflib.get_close_matches(asset, chain.stages, n=3)
        raise FoundryError(
            f"no asset is called {asset!r}" + (f"; did you mean {', '.join(close)}?" if close else ""),
            where="asset",
            mend="foundry status   # lists every asset",
        )
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for needed in chain.stages[name].inputs:
                visit(needed)
            order.append(name)

    visit(asset)
    return order


def estimate(d: Declarations, chain: Chain, asset: str) -> dict[str, Any]:
    """Requests, tokens and dollars that are still to be spent for an asset, stage by stage.

    Raises UnknownPrice for a model that the price table does not know.
    """
    prices = load_prices(d.root / PRICES)
    ledger = _ledger(chain)
    today = dt.datetime.now(dt.UTC).date()
    memo: dict[str, Resolved] = {}
    stages, total = [], Estimate()
    for name in upstream(chain, asset):
        row, part = _stage(d, chain, chain.stages[name], prices, ledger, today, memo)
        stages.append(row)
        total += part
    caps = _caps(chain)
    counted = ledger.totals().counted if ledger else 0
    return {
        "asset": asset,
        "profile": d.profile.profile,
        "day": today.isoformat(),
        "prices_checked": prices.table.checked.isoformat(),
        "stages": stages,
        "requests": total.requests,
        "tokens": {"input": total.input.__dict__, "output": total.output.__dict__},
        "usd": _dollars(total.cost),
        "budget": {"project_usd": usd(caps.project), "run_usd": usd(caps.run), "counted_usd": usd(counted)},
        "fits_the_budget": total.cost.expected <= min(caps.project - counted, caps.run) or total.cost.expected == 0,
    }


def _stage(
    d: Declarations,
    chain: Chain,
    stage: Stage,
    prices: Prices,
    ledger: MoneyLedger | None,
    today: dt.date,
    memo: dict[str, Resolved],
) -> tuple[dict[str, Any], Estimate]:
    def row(how: str, part: Estimate = NOTHING, **more: Any) -> tuple[dict[str, Any], Estimate]:
        figures = {
            "requests": part.requests,
            "stored": more.pop("stored", 0),
            "tokens": {"input": part.input.__dict__, "output": part.output.__dict__},
            "usd": _dollars(part.cost),
        }
        return {"stage": stage.name, "how": how, **figures, **more}, part

    if stage.requests is None and stage.demand is None:
        return row("local")
    try:
        found = chain.resolve(stage.name, memo)
    except FoundryError as error:
        found = Resolved(stage, None, None, (f"{error.what}",))
    if found.record is not None:
        return row("built")
    demand = stage.demand() if stage.demand is not None else None
    if stage.requests is not None and not found.missing:
        inputs = {i: chain.store.open(r.content_hash, name=i) for i in stage.inputs if (r := memo[i].record)}
        model, requests = stage.requests(inputs)
        waiting = _unanswered(chain, model, requests)
        part = estimate_requests(
            waiting, rate=_rate(prices, model, today), mean_answer=_mean(ledger, model, stage.name)
        )
        stored = len(requests) - len(waiting)
        beyond = max(0, demand.requests - len(requests)) if demand and stage.kind == "introspection" else 0
        if not beyond or demand is None:
            return row("counted from the requests", part, stored=stored, model=model.path)
        part += _demanded(prices, demand, beyond, today, ledger, stage.name)
        return row("counted, and later rounds estimated from declarations", part, stored=stored, model=model.path)
    if demand is None:
        return row(f"unknown until {', '.join(found.missing)} is built")
    part = _demanded(prices, demand, demand.requests, today, ledger, stage.name)
    return row("estimated from declarations", part, model=demand.model.path)


def _demanded(
    prices: Prices, demand: Any, count: int, today: dt.date, ledger: MoneyLedger | None, asset: str
) -> Estimate:
    return estimate_demand(
        count,
        demand.prompt_bytes,
        demand.answer_tokens,
        rate=_rate(prices, demand.model, today),
        mean_answer=_mean(ledger, demand.model, asset),
    )


def _rate(prices: Prices, model: ModelRef, today: dt.date) -> Rate:
    remote = model.remote or {}
    return FREE if remote.get("free") else prices.rate_for(model, today, batch=bool(remote.get("batch")))


def _mean(ledger: MoneyLedger | None, model: ModelRef, asset: str) -> float | None:
    if ledger is None:
        return None
    return mean_answer(ledger.rows("state = 'settled' AND model = ? AND asset = ?", [model.path, asset]))


def _unanswered(chain: Chain, model: ModelRef, requests: list[ChatRequest]) -> list[ChatRequest]:
    """Requests that the response cache has no answer to, each once."""
    keyed = {request_key(model, request): request for request in requests}
    if not is_there(chain.settings.responses_path):
        return list(keyed.values())
    stored = ResponseCache(chain.settings.responses_path).find(list(keyed))
    return [request for key, request in keyed.items() if key not in stored]


def _ledger(chain: Chain) -> MoneyLedger | None:
    path = chain.settings.money_path
    return MoneyLedger(path) if is_there(path) else None


def _caps(chain: Chain) -> Caps:
    budget = profile_budget(chain.settings)
    return lowered(Caps(picodollars(budget.project_usd), picodollars(budget.run)))


def _dollars(span: Span) -> dict[str, str]:
    return {"low": usd(span.low), "expected": usd(span.expected), "high": usd(span.high)}


# -- what was paid ---------------------------------------------------------------------------------------------------


def costs(d: Declarations, chain: Chain, asset: str | None = None) -> dict[str, Any]:
    """Money by asset, by run and in total, from the ledger; beside it what was reported elsewhere, marked as such."""
    ledger = _ledger(chain)
    rows = _rows(ledger) if ledger else []
    if asset is not None:
        names = set(upstream(chain, asset))
        rows = [row for row in rows if row["asset"] in names]
    total = _sum(rows)
    caps = _caps(chain)
    everything = ledger.totals() if ledger else None
    return {
        "asset": asset,
        "total": total,
        "by_asset": _by(rows, "asset"),
        "by_run": _by(rows, "run"),
        "by_model": _by(rows, "model"),
        "budget": {
            "project_usd": usd(caps.project),
            "run_usd": usd(caps.run),
            "counted_usd": usd(everything.counted if everything else 0),
        },
        "trained": _trained(d, chain, rows),
        "reported": {
            "status": "reported elsewhere, not measured here",
            "rows": [
                {**cost, "source": document.source}
                for files in d.characters.values()
                for document in files.reported
                for cost in document.costs
            ],
        },
    }


def _rows(ledger: MoneyLedger) -> list[dict[str, Any]]:
    """All rows; `alive` says whether somebody may still close one that is open. A batch is resumed by its id."""
    rows = ledger.rows()
    ended = ledger.ended([r for r in rows if r["state"] == "reserved"])
    return [{**row, "alive": bool(row["batch"]) or row["process"] not in ended} for row in rows]


def _trained(d: Declarations, chain: Chain, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each declared run what remote answers cost here: its data (shared with other runs of it) and its judging."""
    out = []
    for run in d.runs.values():
        data = set(upstream(chain, run.dataset)) if run.dataset in chain.stages else set()
        judged = {f"{run.run}_eval"}
        out.append(
            {
                "run": run.run,
                "dataset": run.dataset,
                "data_usd": _sum([r for r in rows if r["asset"] in data])["spent_usd"],
                "evaluation_usd": _sum([r for r in rows if r["asset"] in judged])["spent_usd"],
            }
        )
    return out


def _by(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    names = dict.fromkeys(row[column] for row in rows)
    return [{column: name, **_sum([r for r in rows if r[column] == name])} for name in names]


def _sum(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    rows = list(rows)
    settled = [r for r in rows if r["state"] == "settled"]
    # A row of a killed process counts as uncertain as soon as it is known to be one.
    uncertain = [r for r in rows if r["state"] == "uncertain" or (r["state"] == "reserved" and not r["alive"])]
    reserved = [r for r in rows if r["state"] == "reserved" and r["alive"]]
    return {
        "answers": len(settled),
        "input_tokens": sum(r["input_tokens"] for r in settled),
        "cache_write_tokens": sum(r["cache_write_tokens"] for r in settled),
        "cache_read_tokens": sum(r["cache_read_tokens"] for r in settled),
        "output_tokens": sum(r["output_tokens"] for r in settled),
        "spent_usd": usd(sum(r["cost"] for r in settled)),
        "counted_at_the_maximum": sum("no usage" in r["note"] for r in settled),
        "reserved_usd": usd(sum(r["reserved"] for r in reserved)),
        "uncertain": len(uncertain),
        "uncertain_usd": usd(sum(r["reserved"] for r in uncertain)),
        "first": min((r["reserved_at"] for r in rows), default=None),
        "last": max((r["reserved_at"] for r in rows), default=None),
    }


def release_uncertain(chain: Chain) -> dict[str, Any]:
    """Count uncertain rows at nothing, after rows that killed processes left open have become uncertain themselves."""
    from foundry_pipeline.models.money.ledger import reconcile
    from foundry_pipeline.models.remote.answering import paid_answer

    ledger = _ledger(chain)
    if ledger is None:
        return {"released_usd": "0", "rows": 0}
    cache = ResponseCache(chain.settings.responses_path)
    reconcile(ledger, lambda key: paid_answer(cache, key))
    rows = len(ledger.rows("state = 'uncertain'"))
    return {"released_usd": usd(ledger.release_uncertain().uncertain), "rows": rows}
