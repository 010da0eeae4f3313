"""Which engine does the work: this machine, or a Ray cluster that is there already.

`FOUNDRY_ENGINE`        local (default) or ray
`FOUNDRY_RAY_ADDRESS`   the cluster's job server, http://HEAD:8265 (what `ray start --head` calls the dashboard)
`FOUNDRY_RAY_PATIENCE`  seconds after which what no node of the cluster offers, or a cluster that does not answer, is an
                        error (default 60); raise it where an autoscaler adds nodes
"""

from __future__ import annotations

import os
from typing import Literal
from urllib.parse import urlsplit

from foundry_pipeline.errors import FoundryError

ENGINE, ADDRESS, PATIENCE = "FOUNDRY_ENGINE", "FOUNDRY_RAY_ADDRESS", "FOUNDRY_RAY_PATIENCE"
Engine = Literal["local", "ray"]


def engine() -> Engine:
    """The engine that the environment names. Raises FoundryError for any other name."""
    named = os.environ.get(ENGINE, "").strip() or "local"
    if named == "local":
        return "local"
    if named == "ray":
        return "ray"
    raise FoundryError(
        f"there is no engine `{named}`", where=ENGINE, mend=f"export {ENGINE}=ray   # or: unset {ENGINE}"
    )


def ray_address() -> str:
    """The URL of the cluster's job server, without a slash at its end. Raises FoundryError where there is none."""
    given = os.environ.get(ADDRESS, "").strip().rstrip("/")
    if not given:
        raise FoundryError(
            f"{ENGINE}=ray needs the address of a cluster",
            where=ADDRESS,
            mend=f"export {ADDRESS}=http://HEAD:8265   # the dashboard address that `ray start --head` printed",
        )
    parts = urlsplit(given)
    try:
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole or parts.username is not None:
        raise FoundryError(
            f"`{given if parts.username is None else '…'}` is no address of a Ray job server",
            where=ADDRESS,
            mend=f"export {ADDRESS}=http://HEAD:8265   # http or https, a host and a port; neither ray:// nor a password",
        )
    return given


def patience() -> float:
    """Seconds to bear with a cluster that lacks something."""
    given = os.environ.get(PATIENCE, "").strip()
    try:
        seconds = float(given or 60)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:
        raise FoundryError(f"`{given}` is no number of seconds", where=PATIENCE, mend=f"export {PATIENCE}=60")
    return seconds
