"""An HTTP client that connects to the very address that was judged.

    client = guarded_client(allowed=("mirror.lan",), timeout=60, headers={…})

A name is looked up once for a connection; if one of its addresses lies in a private network the connection is refused,
else one of exactly these addresses is connected to. So a name that answers differently when it is asked again (DNS
rebinding) gains nothing. TLS still checks the certificate against the name. Where the environment names a proxy
(HTTP_PROXY and the like), the proxy connects: names are then looked up here as well, where that is possible, and refused
alike, but what the proxy connects to is the proxy's to guard.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from foundry_pipeline.corpus.addresses import host_of, is_private, private, resolved


def guarded_client(*, allowed: Collection[str], timeout: float, headers: Mapping[str, str]) -> Any:
    """An `httpx2.Client` that follows no redirect by itself and connects to no private address but those of `allowed`."""
    import httpcore2
    import httpx2
    from httpx2._utils import get_environment_proxies

    class Backend(httpcore2.SyncBackend):
        """Sockets to judged addresses only."""

        def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Any = None,
        ) -> Any:
            try:
                addresses = resolved(host, port, allowed=allowed)
            except OSError as error:
                raise httpcore2.ConnectError(f"{host} cannot be found ({error})") from error
            last: Exception = httpcore2.ConnectError(host)
            for address in addresses:
                try:
                    return super().connect_tcp(address, port, timeout, local_address, socket_options)
                except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                    last = error
            raise last

    class Transport(httpx2.HTTPTransport):
        def __init__(self) -> None:
            super().__init__()
            self._pool = httpcore2.ConnectionPool(
                ssl_context=httpx2.create_ssl_context(), network_backend=Backend(), max_connections=4
            )

    direct = Transport()
    # A client that is given a transport reads no proxies of the environment by itself.
    proxies = get_environment_proxies()
    mounts = {pattern: httpx2.HTTPTransport(proxy=url) if url else direct for pattern, url in proxies.items()}
    return httpx2.Client(
        transport=direct,
        mounts=mounts,
        timeout=timeout,
        follow_redirects=False,  # each step is judged by the caller
        headers=dict(headers),
    )


def judge_address(url: str, *, first: str, allowed: Collection[str]) -> None:
    """Raise PrivateAddress for a URL, reached from `first`, whose host lies in a private network without being allowed.

    A name is looked up here only where a proxy will connect: `guarded_client` judges what it connects to by itself. One
    that cannot be looked up then passes, since behind a proxy there may be no resolver.
    """
    from httpx2._utils import get_environment_proxies

    host = host_of(url)
    if host in allowed:
        return
    if is_private(url):
        raise private(host, host if url == first else f"a redirect leads to {host}", where=first[:200])
    if get_environment_proxies():
        with suppress(OSError):
            resolved(host, 0)
