"""Addresses of documents: which may be asked, how fast, and what a page's links come to.

>>> joined("https://www.loc.gov/item/mjm1/", "/text/1.txt"), is_private("http://169.254.169.254/")
('https://www.loc.gov/text/1.txt', True)
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urljoin, urlsplit

from foundry_pipeline.errors import FoundryError

# Seconds between two requests that a host publishes as its limit; whatever a manifest declares, it is not asked faster.
PUBLISHED = {
    "founders.archives.gov": 0.1,  # https://founders.archives.gov/API/docdata
    "www.loc.gov": 1.0,  # https://www.loc.gov/apis/json-and-yaml/working-within-limits/ (10 in 10 s for items)
    "tile.loc.gov": 0.4,  # 150 a minute
    "www.gutenberg.org": 2.0,  # https://www.gutenberg.org/policy/robot_access.html
    "gutenberg.org": 2.0,
}


class FetchError(FoundryError):
    """A document that could not be fetched; what was kept of it before is untouched."""


def joined(base: str, address: str) -> str:
    """An address as a page gives it, made whole; raises FetchError for one that is none (`http://[`)."""
    try:
        return urljoin(base, address)
    except ValueError as error:
        raise FetchError(
            f"the page leads to something that is no address: {address[:100]!r}",
            where=base,
            mend="see what the page shows",
        ) from error


def is_private(url: str) -> bool:
    """Whether a URL names this machine or an address inside a private network; names are not looked up."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return False


def is_main_gutenberg(url: str) -> bool:
    """Whether a URL lies on Project Gutenberg's own site, which forbids robots everywhere but on its harvest page."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".").removeprefix("www.").removeprefix("m.")
    return host in ("gutenberg.org", "gutenberg.net") and parts.path.rstrip("/") != "/robot/harvest"
