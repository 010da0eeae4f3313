"""Prices: what an answer cost, and the most that one can cost before it is sent. Whole picodollars, never floats.

prices = load_prices(root / "assets" / "prices.yaml")
rate = prices.rate("anthropic", "claude-sonnet-5-5", day)
rate.cost(Usage(input=1200, output=300))                   # → 5_400_000_000 picodollars: 0.0054 USD
rate.bound(prompt_tokens=6000, answer_tokens=1024)         # → the most that may be billed for such a request
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from pydantic import ValidationError

from foundry_pipeline.declarations.remote import PICO, Price, PriceTable, picodollars
from foundry_pipeline.declarations.yaml_file import read_yaml
from foundry_pipeline.errors import DeclarationError, FoundryError
from foundry_pipeline.models.requests import ChatRequest, ModelRef

PRICES = "assets/prices.yaml"


class UnknownPrice(FoundryError):
    """A model that nobody knows the price of; it is not asked."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer as the provider counts them. `input` holds neither of the cached ones."""

    input: int
    output: int
    cache_write: int = 0
    cache_read: int = 0

    @property
    def prompt(self) -> int:
        return self.input + self.cache_write + self.cache_read


@dataclass(frozen=True)
class Rate:
    """Picodollars per token of one model, on one day, in or out of a batch. `since` names the row of the table.

    `longest` is the longest prompt (tokens) that the rate holds for; None: any.
    """

    input: int
    output: int
    cache_write: int
    cache_read: int
    since: str
    longest: int | None = None

    def cost(self, usage: Usage) -> int:
        return (
            usage.input * self.input
            + usage.output * self.output
            + usage.cache_write * self.cache_write
            + usage.cache_read * self.cache_read
        )

    def bound(self, *, prompt_tokens: int, answer_tokens: int, cached: bool = False) -> int:
        """The most that a request can cost: every prompt token at the dearest input price, the answer at full length."""
        return (
            prompt_tokens * (max(self.input, self.cache_write) if cached else self.input) + answer_tokens * self.output
        )


FREE = Rate(0, 0, 0, 0, "declared free")


def rate_of(price: Price, *, batch: bool) -> Rate:
    factor = price.batch_factor if batch else Decimal(1)
    values = {
        name: picodollars(getattr(price, name) * factor / 1_000_000)
        for name in ("input", "output", "cache_write", "cache_read")
    }
    return Rate(**values, since=price.valid_from.isoformat(), longest=price.max_prompt_tokens)


class Prices:
    """The dated price table of a project."""

    def __init__(self, table: PriceTable, where: str = PRICES) -> None:
        self.table, self.where = table, where

    def price(self, provider: str, model: str, day: dt.date) -> Price:
        """The row that holds on a day. Raises UnknownPrice for a model without one."""
        rows = [p for p in self.table.prices if (p.provider, p.model) == (provider, model)]
        valid = [p for p in rows if p.valid_from <= day and (p.valid_until is None or day <= p.valid_until)]
        if valid:
            return max(valid, key=lambda p: p.valid_from)
        known = ", ".join(sorted({p.model for p in self.table.prices if p.provider == provider})) or "none"
        what = (
            f"the price table has no price of {model} on {day} (rows begin {', '.join(str(p.valid_from) for p in rows)})"
            if rows
            else f"the price table does not know {provider}'s model {model!r} (known: {known})"
        )
        raise UnknownPrice(
            f"{what}; nothing is sent to a model whose price is unknown",
            where=self.where,
            mend=f"add the row with its source to {PRICES}, or declare a server of your own as `remote: {{free: true}}`",
        )

    def rate(self, provider: str, model: str, day: dt.date, *, batch: bool = False) -> Rate:
        return rate_of(self.price(provider, model, day), batch=batch)

    def rate_for(self, model: ModelRef, day: dt.date, *, batch: bool = False) -> Rate:
        """The rate of a remote model; nothing where its declaration says that the server is free."""
        if (model.remote or {}).get("free"):
            return FREE
        return self.rate(model.backend, model.path, day, batch=batch)


def load_prices(path: Path) -> Prices:
    """The price table of a file. Raises DeclarationError naming file and field."""
    data = read_yaml(path)
    try:
        return Prices(PriceTable.model_validate(data), where=str(path))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "(whole file)"
        raise DeclarationError(
            f"the price table cannot be used: `{field}`: {first['msg']}",
            where=f"{path}, field `{field}`",
            mend="correct the named field, then run `foundry check`",
        ) from error


_PER_REQUEST = 1024  # what a provider may add around a prompt: its own framing, and how it explains a schema
_PER_MESSAGE = 16


def token_bound(request: ChatRequest) -> int:
    """The most tokens that a prompt can have, without asking anyone.

    Every token of a byte-level vocabulary stands for at least one byte, so bytes bound tokens from above; English text
    has about a quarter as many. The framing around it is bounded by a constant.
    """
    texts = [text for text, _ in request.system] + [content for _, content in request.messages] + [request.schema]
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return size + _PER_REQUEST + _PER_MESSAGE * (len(request.messages) + len(request.system))


def usd(amount: int) -> str:
    """Picodollars as an exact decimal of dollars, without trailing zeros: `0.0054`."""
    text = f"{Decimal(amount) / PICO:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def short_usd(amount: int) -> str:
    """For people: four digits behind the point, more where the amount is smaller than that."""
    value = Decimal(amount) / PICO
    return f"{value:.4f}" if value == 0 or abs(value) >= Decimal("0.0001") else f"{value:.3g}"
