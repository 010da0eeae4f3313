"""Where a remote model is, with which key it is asked, and what is kept out of everything that is written.

    service_of(model)            # Service(provider="anthropic", base_url="https://api.anthropic.com", key=…, name="")

Keys are read when a client is made, from the environment or from the file that it names (`foundry_pipeline.keys`), and
nowhere else; they are part of no spec, no hash and no message.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.keys import KeyRefused, secret
from foundry_pipeline.models.requests import Backend, ModelRef

KEYS: dict[Backend, str] = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
ADDRESSES: dict[Backend, str] = {"anthropic": "ANTHROPIC_BASE_URL", "openai": "OPENAI_BASE_URL"}
DEFAULTS: dict[Backend, str] = {"anthropic": "https://api.anthropic.com", "openai": "https://api.openai.com/v1"}


@dataclass(frozen=True)
class Service:
    """A server to ask, or several of one model. `name` tells them apart from others in the response cache; empty for the
    provider's own."""

    provider: Backend
    base_urls: tuple[str, ...]
    name: str
    key: str = field(repr=False)


def address(model: ModelRef) -> str:
    """Where the model is asked; of several servers the first, which stands for all of them."""
    return addresses(model)[0]


def addresses(model: ModelRef) -> tuple[str, ...]:
    """Every server: the environment's addresses before the declared ones before the provider's own.

    Raises FoundryError for what is no address, and for several where one is expected.
    """
    variable = ADDRESSES[model.backend]
    remote = model.remote or {}
    given = os.environ.get(variable, "").replace(",", " ").split()
    urls = given or remote.get("base_urls") or [remote.get("base_url") or DEFAULTS[model.backend]]
    checked = tuple(dict.fromkeys(_checked(model, str(url).rstrip("/"), given=bool(given)) for url in urls))
    if len(checked) > 1 and (model.backend == "anthropic" or DEFAULTS["openai"] in checked):
        raise FoundryError(
            "the provider's own server cannot be one of several: it answers as another model, at another price",
            where=variable if given else f"{model.title}, field `base_urls`",
            mend="name only servers of your own that serve the same model",
        )
    return checked


def _checked(model: ModelRef, url: str, *, given: bool) -> str:
    try:
        parts = urlsplit(url)
        plain = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.username or parts.password)
    except ValueError:
        plain = False
    if not plain or parts.query or parts.fragment:
        raise FoundryError(
            "this is no address of a server: http or https, a host, and neither user nor password is expected",
            where=ADDRESSES[model.backend] if given else f"{model.title}, field `base_url`",
            mend=f"export {ADDRESSES[model.backend]}=https://…  (keys go into {KEYS[model.backend]})",
        )
    return url


def service_name(model: ModelRef) -> str:
    """What identifies the server in hashes: nothing for the provider's own, a declared name, or the address.

    So answers of a test server never stand in for those of the real one, while a server that moves keeps its answers
    when its declaration gives it a name.
    """
    declared = str((model.remote or {}).get("service") or "")
    if declared:
        return declared
    url = address(model)
    return "" if url == DEFAULTS[model.backend] else url


def fingerprint(model: ModelRef) -> dict[str, str]:
    """For a stage's `external`: where its answers come from, where that is not the provider itself."""
    name = service_name(model)
    return {f"service of {model.path}": name} if name else {}


def service_of(model: ModelRef) -> Service:
    """The server with its key. Raises FoundryError where the provider's own server would be asked without a key."""
    urls, variable = addresses(model), KEYS[model.backend]
    url = urls[0]
    try:
        key = secret(variable)
    except KeyRefused as refused:
        raise FoundryError(refused.what, where=refused.where, mend=refused.mend) from None
    if not key and (model.backend == "anthropic" or url == DEFAULTS[model.backend]):
        raise FoundryError(
            f"no key for {model.title}: the environment has no {variable} and no {variable}_FILE",
            where=url,
            mend=f"export {variable}=…   # or {variable}_FILE=<a file that only you may read>; it is written nowhere",
        )
    if not all(33 <= ord(c) <= 126 for c in key):
        # Sent as it is, it would come back inside the error of a header that cannot be written.
        raise FoundryError(
            "the key holds a space, a line break or another character that no key has",
            where=variable,
            mend=f"export {variable}=…   # the key alone, on one line",
        )
    return Service(model.backend, urls, service_name(model), key or "not-needed")


def quiet_clients() -> None:
    """Keep the SDKs from logging requests and headers, whatever their own log variables say."""
    import logging

    for name in ("anthropic", "openai", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def http_client(sdk: Any) -> Any:
    """The HTTP client that an SDK (`anthropic`, `openai`) is given: it follows nobody, and uses each connection once.

    A server that sends elsewhere would have prompts, and perhaps the key, follow it there. And whatever comes behind an
    answer, as where something on the way sends a reply twice, would be read as the answer to the next request.
    """
    import httpx2

    once = httpx2.Limits(max_connections=1000, max_keepalive_connections=0)
    return sdk.DefaultHttpxClient(follow_redirects=False, limits=once)
