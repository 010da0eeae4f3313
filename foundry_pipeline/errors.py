"""The one error that reaches a user: what was wrong, where, and the command that mends it."""

from __future__ import annotations

from foundry_pipeline.keys import redact


class FoundryError(Exception):
    """A failure that a user can act on.

    `what` says what was wrong, `where` names the file, field or artifact, and `mend` is the command
    (or edit) that puts it right. All three are shown; a caller never has to read a traceback. No key and no password of
    a URL stands in any of them: an error is printed, logged and kept in Dagster's history.
    """

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        self.what, self.where, self.mend = redact(what), redact(where), redact(mend)
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.mend:
            lines.append(f"  mend:  {self.mend}")
        super().__init__("\n".join(lines))


class DeclarationError(FoundryError):
    """A declaration under `sources/` or `assets/` that cannot be used as written."""


class DamagedArtifact(FoundryError):
    """Stored content that no longer matches the hash it is named by."""


class MissingArtifact(FoundryError):
    """Something upstream that has not been built for the present declarations."""


class GateRefused(FoundryError):
    """A dataset, or exported files, without a passed verdict; what would read them does not start."""


class Locked(FoundryError):
    """Another process is writing the same artifact."""


class StoreAway(FoundryError):
    """The shared store does not answer, refuses the key, or is not there. Nothing half-written is visible in it."""


class Collapsed(FoundryError):
    """A training that a guard has stopped: there is no adapter, and nothing of it is scored."""
