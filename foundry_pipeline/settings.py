"""Where the project, its store and its profile are; read from the environment once per call, never cached.

`FOUNDRY_ROOT`     project folder (default: the nearest parent of the working directory with `sources/` and `assets/`)
`FOUNDRY_STORE`    artifacts, ledger and response cache (default: `.foundry` in the project folder)
`FOUNDRY_PROFILE`  a name under `assets/profiles/` (default: `laptop`)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from foundry_pipeline.errors import FoundryError


@dataclass(frozen=True)
class Settings:
    """The three places everything else is found from."""

    root: Path
    store: Path
    profile: str

    @property
    def ledger_url(self) -> str:
        return os.environ.get("FOUNDRY_LEDGER_URL") or f"sqlite:///{self.store / 'ledger.db'}"

    @property
    def responses_path(self) -> Path:
        return self.store / "responses.db"

    @property
    def vectors_path(self) -> Path:
        """Sentence embeddings that are kept; may be deleted at any time."""
        return self.store / "vectors.db"

    @property
    def reports(self) -> Path:
        return self.store / "reports"


def find_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` that holds `sources/` and `assets/`."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "sources").is_dir() and (folder / "assets").is_dir():
            return folder
    raise FoundryError(
        "no Foundry project here: neither this folder nor one above it holds `sources/` and `assets/`",
        where=str(here),
        mend="cd into the project, or set FOUNDRY_ROOT to it",
    )


def load_settings() -> Settings:
    root = Path(os.environ["FOUNDRY_ROOT"]).resolve() if os.environ.get("FOUNDRY_ROOT") else find_root()
    store = Path(os.environ.get("FOUNDRY_STORE") or root / ".foundry")
    return Settings(root=root, store=store.resolve(), profile=os.environ.get("FOUNDRY_PROFILE") or "laptop")
