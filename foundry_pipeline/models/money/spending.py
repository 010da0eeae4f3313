"""What a job needs to know before it may spend: the ledger, the price table, the caps, and on whom to book.

The parent process puts this into the spec of the generation script (`spending_spec`); the script opens it
(`open_spending`). `FOUNDRY_BUDGET_USD` lowers both caps and never raises them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from foundry_pipeline.declarations.remote import Budget, picodollars
from foundry_pipeline.declarations.yaml_file import read_yaml
from foundry_pipeline.errors import DeclarationError, FoundryError
from foundry_pipeline.models.money.ledger import Caps, MoneyLedger
from foundry_pipeline.models.money.prices import PRICES, Prices, load_prices
from foundry_pipeline.settings import Settings, load_settings

LOWERED = "FOUNDRY_BUDGET_USD"


@dataclass(frozen=True)
class Spending:
    """The money side of a job. `prices` is read when the first price is asked for: a free server needs no table."""

    ledger: MoneyLedger
    prices_path: Path
    caps: Caps
    asset: str

    def prices(self) -> Prices:
        return load_prices(self.prices_path)


def profile_budget(settings: Settings) -> Budget:
    """The budget of the profile in force."""
    path = settings.root / "assets" / "profiles" / f"{settings.profile}.yaml"
    data = read_yaml(path)
    try:
        return Budget.model_validate((data if isinstance(data, dict) else {}).get("budget") or {})
    except ValidationError as error:
        raise DeclarationError(
            f"`budget` cannot be used: {error.errors()[0]['msg']}",
            where=f"{path}, field `budget`",
            mend="correct the named field, then run `foundry check`",
        ) from error


def spending_spec(settings: Settings, asset: str) -> dict[str, Any]:
    """The money part of a script's spec: paths and declared caps, no price and no key."""
    budget = profile_budget(settings)
    return {
        "ledger": str(settings.money_path),
        "prices": str(settings.root / PRICES),
        "project_usd": str(budget.project_usd),
        "run_usd": str(budget.run),
        "asset": asset,
    }


def open_spending(spec: dict[str, Any] | None) -> Spending:
    """The money side of a script; without a spec of it, that of the project around the working directory."""
    if spec is None:
        spec = spending_spec(load_settings(), asset="")
    missing = {"ledger", "prices", "project_usd"} - spec.keys()
    if missing:
        raise FoundryError(
            f"the spec's `money` lacks {', '.join(sorted(missing))}",
            where="spec, field `money`",
            mend='give {"ledger": …, "prices": …, "project_usd": "5", "run_usd": "5", "asset": …}',
        )
    project = spec["project_usd"]
    caps = Caps(_amount(project, "project_usd"), _amount(spec.get("run_usd", project), "run_usd"))
    return Spending(
        MoneyLedger(Path(spec["ledger"])), Path(spec["prices"]), lowered(caps), str(spec.get("asset") or "")
    )


def lowered(caps: Caps) -> Caps:
    """Caps under FOUNDRY_BUDGET_USD, where that is set."""
    given = os.environ.get(LOWERED, "").strip()
    if not given:
        return caps
    most = _amount(given, LOWERED)
    return Caps(min(caps.project, most), min(caps.run, most))


def _amount(value: Any, name: str) -> int:
    try:
        amount = picodollars(Decimal(str(value)))
    except (InvalidOperation, ValueError):
        amount = -1
    if amount < 0:
        raise FoundryError(
            f"{value!r} is no amount of US dollars", where=name, mend=f"give a number such as 12.50 for {name}"
        )
    return amount
