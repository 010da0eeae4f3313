"""Remote models, what they cost and what may be spent: typed pieces of profiles and of `assets/prices.yaml`.

    teacher:
      kind: claude
      model: claude-sonnet-5-5
      remote: {concurrency: 8, batch: true}
    budget: {project_usd: 40, run_usd: 15}

No key stands in a declaration: ANTHROPIC_API_KEY and OPENAI_API_KEY are read from the environment by the process that
asks, and by nobody else. ANTHROPIC_BASE_URL and OPENAI_BASE_URL replace `base_url`.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from foundry_pipeline.declarations.common import Declaration

PICO = 10**12
"""Picodollars in a dollar: a price per million tokens with up to six decimals is a whole number of them per token."""


def picodollars(usd: Decimal) -> int:
    """Dollars as a whole number of picodollars. Raises ValueError for an amount that is none."""
    amount = usd * PICO
    if not amount.is_finite() or amount != amount.to_integral_value():
        raise ValueError(f"{usd} USD is no whole number of picodollars")
    return int(amount)


class RemoteService(Declaration):
    """How a remote model is asked. Only `base_url`, `service`, `effort` and `sampling` bear on what it answers.

    Several servers of one model (`base_urls`) are one service: known by `service`, or else by the first of them, so that
    servers may be added at the end of the list, or leave it, and what was answered stays answered.
    """

    base_url: str = Field(
        default="",
        description="where the server is; empty: the provider's own. ANTHROPIC_BASE_URL or OPENAI_BASE_URL replace it",
    )
    base_urls: tuple[str, ...] = Field(
        default=(),
        description="several servers of the same model, instead of base_url: requests go to the one with the least under "
        "way, a dead one is left out. OPENAI_BASE_URL may hold several as well, between commas",
    )
    service: str = Field(
        default="",
        description="a name that stands for the server's address in the response cache, for one that moves about",
    )
    effort: Literal["", "low", "medium", "high", "xhigh", "max"] = Field(
        default="", description="how hard the model is to think, where the provider has such a setting; empty: its own"
    )
    sampling: bool = Field(
        default=True,
        description="with an OpenAI-compatible server: send temperature, top_p and seed; reasoning models refuse them",
    )
    free: bool = Field(
        default=False, description="the server asks no money (one's own): costs 0 instead of a price from the table"
    )
    concurrency: int = Field(default=8, ge=1, le=256, description="requests under way at once")
    batch: bool = Field(default=False, description="ask through the provider's batch interface, at its batch price")
    batch_size: int = Field(default=1000, ge=1, le=100_000, description="most requests in one batch")
    poll_seconds: float = Field(default=20.0, gt=0, le=3600, description="between two looks at a batch")
    count_tokens: bool = Field(
        default=False, description="ask the provider how long a prompt is before reserving money; else bytes bound it"
    )
    timeout_seconds: float = Field(default=300.0, gt=0, le=3600, description="for one answer")
    attempts: int = Field(default=6, ge=1, le=50, description="tries of one request before it counts as failed")
    max_wait_seconds: float = Field(
        default=90.0, ge=0, description="longest pause before a retry; a server that asks for more ends the run"
    )

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        return _address(value) if value else value

    @field_validator("base_urls")
    @classmethod
    def _plain_addresses(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        plain = tuple(_address(value) for value in values)
        if len(set(plain)) < len(plain):
            raise ValueError("one address stands twice in the list")
        return plain

    @model_validator(mode="after")
    def _one_or_many(self) -> Self:
        if self.base_url and self.base_urls:
            raise ValueError("either base_url or base_urls: the list holds every server")
        if len(self.base_urls) > 1 and self.batch:
            raise ValueError("batch is an interface of one provider, not of several servers")
        return self


def _address(value: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an http or https address is expected, such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("no user, password, query or fragment belongs in an address: keys come from the environment")
    return value.rstrip("/")


class Budget(Declaration):
    """What may be spent on remote models. Nothing is sent that could go beyond it; 0 forbids every paid request."""

    project_usd: Decimal = Field(default=Decimal(0), ge=0, le=1_000_000, description="in this store, ever")
    run_usd: Decimal | None = Field(default=None, ge=0, le=1_000_000, description="in one run; empty: project_usd")

    @field_validator("project_usd", "run_usd", mode="before")
    @classmethod
    def _exact(cls, value: object) -> object:
        # YAML reads 0.1 as a binary fraction; its shortest form is what was written.
        return str(value) if isinstance(value, float) else value

    @field_validator("project_usd", "run_usd")
    @classmethod
    def _whole(cls, value: Decimal | None) -> Decimal | None:
        if value is not None:
            picodollars(value)
        return value

    @property
    def run(self) -> Decimal:
        return self.project_usd if self.run_usd is None else self.run_usd


class Price(Declaration):
    """What one model costs from a day on, in US dollars per million tokens."""

    provider: Literal["anthropic", "openai"]
    model: str = Field(min_length=1)
    input: Decimal = Field(ge=0)
    output: Decimal = Field(ge=0)
    cache_write: Decimal = Field(ge=0, description="input written to the provider's cache")
    cache_read: Decimal = Field(ge=0, description="input found in it")
    batch_factor: Decimal = Field(default=Decimal(1), gt=0, le=1, description="of every price, in a batch")
    max_prompt_tokens: int | None = Field(
        default=None, ge=1, description="longest prompt that this price holds for, where longer ones cost more"
    )
    valid_from: dt.date
    valid_until: dt.date | None = Field(default=None, description="last day; empty: until a later row of the model")
    source: str = Field(min_length=1, description="where the price was read, and when")

    @field_validator("input", "output", "cache_write", "cache_read", "batch_factor", mode="before")
    @classmethod
    def _exact(cls, value: object) -> object:
        return str(value) if isinstance(value, float) else value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for name in ("input", "output", "cache_write", "cache_read"):
            for factor in (Decimal(1), self.batch_factor):
                picodollars(getattr(self, name) * factor / 1_000_000)
        if self.valid_until is not None and self.valid_until < self.valid_from:
            raise ValueError("valid_until lies before valid_from")
        return self


class PriceTable(Declaration):
    """`assets/prices.yaml`."""

    checked: dt.date = Field(description="the day on which the whole table was last compared with its sources")
    prices: tuple[Price, ...]

    @model_validator(mode="after")
    def _once(self) -> Self:
        keys = [(p.provider, p.model, p.valid_from) for p in self.prices]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"two prices of {key[1]} from {key[2]}")
        return self
