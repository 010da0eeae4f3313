"""What a failed request to an object store is told as: no such bucket, a key it refuses, a store that is away, a full disk.

raise told_as(error, "s3://bucket/prefix", "index/5b….json") from error
"""

from __future__ import annotations

import errno
from pathlib import Path

from foundry_pipeline.errors import StoreAway
from foundry_pipeline.lineage.files import disk_error


def told_as(error: Exception, shown: str, key: str) -> Exception:
    """What a failure is told as. Texts of the store are not quoted whole: they may repeat the request's key."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return disk_error(error, Path(str(error.filename or key)))
    where, name = f"{shown}/{key}" if key else shown, type(error).__name__
    response = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
    code = str((response or {}).get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
    if code == "NoSuchBucket":
        return StoreAway(
            "there is no such bucket",
            where=shown,
            mend="create it (`aws s3 mb s3://NAME`), or set FOUNDRY_STORE to one that is there",
        )
    if isinstance(error, PermissionError) or "Credential" in name or code in ("403", "AccessDenied"):
        return StoreAway(
            f"the store refuses the key it was given ({code or name})",
            where=where,
            mend="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) to one that may read and write "
            "there, then repeat the same command",
        )
    if isinstance(error, FileNotFoundError):
        return error
    told = f" ({code or name})"
    return StoreAway(
        f"the store does not answer, or not as it should{told}",
        where=where,
        mend="repeat the same command once it is back: what has been sent or fetched is kept and not sent again",
    )
