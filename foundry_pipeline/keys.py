"""Keys and passwords: where they are read from, and how they are kept out of everything that is written.

    export ANTHROPIC_API_KEY=sk-…                        # in the environment, or
    export ANTHROPIC_API_KEY_FILE=~/.config/anthropic.key  # in a file that nobody else may read

    secret("ANTHROPIC_API_KEY")              # the key, or ""
    redact("401: bad key sk-ant-…")          # "401: bad key [key removed]"
    redact("postgresql://me:pass@host/db")   # "postgresql://me:[removed]@host/db"

Every `FoundryError` passes `redact` by itself, every reply of a server `without_keys` before it is kept. A key is part of
no spec, no hash, no declaration.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

SECRETS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "OPENAI_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "PGPASSWORD",
)
"""Variables whose value is a secret; each may be given as a file instead, by the same name with `_FILE`."""
_REMOVED = "[key removed]"
_SHORTEST = 8  # characters: a shorter one would take ordinary words out of texts
# The shape of the providers' own keys, for one that is not in this environment.
_SHAPES = re.compile(r"\b(?:sk-[A-Za-z0-9_\-]{16,}|hf_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16})")
# A password in a URL: between the user's name and the host, or in its query.
_IN_URL = re.compile(
    r"(?P<head>\b[a-z][a-z0-9+.\-]{1,20}://[^\s/?#@:\"'<>]{0,256}:)(?P<pass>[^\s/?#\"'<>]{1,512})(?=@)", re.I
)
_IN_QUERY = re.compile(r"(?P<head>[?&;](?:password|passwd|pwd|token|api_?key|secret|sslpassword)=)[^\s&;#\"'<>]+", re.I)
_LARGEST = 64 * 1024


class KeyRefused(Exception):
    """Why a key file is not read; `what` and `mend` are for a FoundryError."""

    def __init__(self, what: str, where: str, mend: str) -> None:
        self.what, self.where, self.mend = what, where, mend
        super().__init__(what)


def secret(variable: str) -> str:
    """The value of a secret: of the variable, else of the file that `<variable>_FILE` names; empty where neither is set.

    Raises KeyRefused for a file that others than its owner may read or write, that belongs to somebody else, or that is
    no file: a key that anybody may read is no secret any more, and is to be replaced.
    """
    given = os.environ.get(variable, "").strip()
    if given:
        return given
    named = os.environ.get(f"{variable}_FILE", "").strip()
    return _from_file(Path(named).expanduser(), f"{variable}_FILE") if named else ""


def _from_file(path: Path, variable: str) -> str:
    where = f"{variable}={path}"
    try:
        # What is judged is what is read: opened once, its facts taken from the open file.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KeyRefused(
            f"the file with the key cannot be read ({error.strerror})", where, "name a file that you can read"
        ) from None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _LARGEST:
            raise KeyRefused("the key is to be in a small plain file", where, "write the key alone into a file")
        if facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyRefused(
                f"others may use the file with the key (its mode is {stat.S_IMODE(facts.st_mode):04o})",
                where,
                f"chmod 600 '{path}'   # and replace the key if others have been on this machine",
            )
        if facts.st_uid not in (os.geteuid(), 0):
            raise KeyRefused("the file with the key belongs to another user", where, f"chown $(id -un) '{path}'")
        return os.read(descriptor, _LARGEST).decode("utf-8", "replace").strip()
    finally:
        os.close(descriptor)


def _known() -> Iterator[str]:
    for variable in SECRETS:
        try:
            value = secret(variable)
        except KeyRefused:
            continue
        if len(value) >= _SHORTEST:
            yield value
    # Passwords of the databases and proxies that this process was told of.
    for variable, value in os.environ.items():
        if (
            "://" in value
            and "@" in value
            and (variable.startswith("FOUNDRY_") or variable.upper().endswith(("_URL", "_PROXY")))
        ):
            for found in _IN_URL.finditer(value):
                for form in {found["pass"], unquote(found["pass"])}:
                    if len(form) >= _SHORTEST:
                        yield form


def without_keys(text: str) -> str:
    """A text without any secret that this process knows of, or that looks like a provider's key; else as it is."""
    for value in sorted(set(_known()), key=len, reverse=True):
        text = text.replace(value, _REMOVED)
    return _SHAPES.sub(_REMOVED, text)


def redact(text: str) -> str:
    """The same, and without what a URL carries as a password: for messages, which may quote one."""
    text = without_keys(text)
    if "://" in text:
        text = _IN_URL.sub(r"\g<head>[removed]", text)
    return _IN_QUERY.sub(r"\g<head>[removed]", text) if "=" in text else text
