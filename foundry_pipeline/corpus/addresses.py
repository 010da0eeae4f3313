"""Addresses of documents: which may be asked, how fast, and what a page's links come to.

>>> joined("https://www.loc.gov/item/mjm1/", "/text/1.txt"), is_private("http://169.254.169.254/")
('https://www.loc.gov/text/1.txt', True)
>>> is_private("http://2130706433/"), is_private("http://[::ffff:10.0.0.7]/")  # 127.0.0.1 and 10.0.0.7, otherwise written
(True, True)
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
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
# Prefixes that carry an IPv4 address in their last 32 bits: mapped, compatible, translated (RFC 2765), NAT64 (RFC 6052).
_LAST_BITS = tuple(ipaddress.IPv6Network(n) for n in ("::ffff:0:0/96", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")  # RFC 3056: in bits 16 to 48
_LOCAL_TRANSLATION = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215: within one network only
_TEREDO = ipaddress.IPv6Network("2001::/32")  # RFC 4380: in the last 32 bits, inverted


class FetchError(FoundryError):
    """A document that could not be fetched; what was kept of it before is untouched."""


class PrivateAddress(FetchError):
    """An address inside a private network that no declaration allows to be asked."""


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


def host_of(url: str) -> str:
    """The host of a URL as it is compared: lower case, without brackets, zone and a final dot; empty where there is none."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return ""
    return host.partition("%")[0].rstrip(".").lower()


def is_public(address: str) -> bool:
    """Whether an IP address (as text) is one of the open internet: neither this machine, a private network, a link, a
    group nor a reserved block, in whatever IPv6 form an IPv4 address may be wrapped. Raises ValueError for what is none.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = _wrapped(ip)
        if inner is not None:
            return is_public(str(inner))
        if ip in _LOCAL_TRANSLATION or ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _wrapped(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    number = int(ip)
    if any(ip in network for network in _LAST_BITS) and number > 1:
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    if ip in _SIX_TO_FOUR:
        return ipaddress.IPv4Address(number >> 80 & 0xFFFFFFFF)
    if ip in _TEREDO:
        return ipaddress.IPv4Address(~number & 0xFFFFFFFF)
    return None


def is_private(url: str) -> bool:
    """Whether a URL names this machine or an address inside a private network; names are not looked up here.

    Other ways to write an IPv4 address, which every resolver reads (`2130706433`, `0x7f.1`, `127.1`), count as addresses.
    """
    host = host_of(url)
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal", ".home.arpa")):
        return True
    try:
        return not is_public(host)
    except ValueError:
        pass
    try:
        return not is_public(socket.inet_ntoa(socket.inet_aton(host)))
    except (OSError, ValueError):
        return False


def resolved(host: str, port: int, *, allowed: Collection[str] = ()) -> list[str]:
    """The IP addresses of a host, looked up once; the caller connects to one of these and to nothing else.

    `allowed` are hosts that may lie in a private network. Raises PrivateAddress if any of the addresses is not public: a
    name with a public and a private one is how a browser's rules are got around. Raises OSError where the lookup fails.
    """
    found = list(dict.fromkeys(str(f[4][0]) for f in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
    if not found:
        raise OSError(f"{host} has no address")
    inside = [a for a in found if not is_public(a)]
    if inside and host.partition("%")[0].rstrip(".").lower() not in allowed:
        raise private(host, f"{host} is {inside[0]}" if inside[0] != host else host)
    return found


def private(host: str, what: str, *, where: str = "") -> PrivateAddress:
    """The refusal of an address inside a private network, with the declaration that would allow it."""
    return PrivateAddress(
        f"{what[:200]}, an address inside a private network, is not asked",
        where=where or host,
        mend=f"if that is what you want, declare it in the manifest: `fetch: {{private_hosts: ['{host[:100]}']}}`",
    )


def is_main_gutenberg(url: str) -> bool:
    """Whether a URL lies on Project Gutenberg's own site, which forbids robots everywhere but on its harvest page."""
    host = host_of(url).removeprefix("www.").removeprefix("m.")
    return host in ("gutenberg.org", "gutenberg.net") and urlsplit(url).path.rstrip("/") != "/robot/harvest"
