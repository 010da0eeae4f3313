"""Where the project, its store and its profile are; read from the environment once per call, never cached.

`FOUNDRY_ROOT`     project folder (default: the nearest parent of the working directory with `sources/` and `assets/`)
`FOUNDRY_STORE`    artifacts, ledger and response cache (default: `.foundry` in the project folder)
`FOUNDRY_PROFILE`  a name under `assets/profiles/` (default: `laptop`)
`FOUNDRY_DATABASE` postgresql://user:password@host/database, which several machines may share: Dagster's runs, events and
                   schedules, the score ledger, the response cache and the ledger of money stand there (default: SQLite
                   files, in `.dagster` and in the store). Sentence embeddings stay in the store of each machine: they
                   are made anew faster than they would be fetched
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from foundry_pipeline.errors import FoundryError

DATABASE = "FOUNDRY_DATABASE"


@dataclass(frozen=True)
class Settings:
    """The three places everything else is found from."""

    root: Path
    store: Path
    profile: str

    @property
    def database(self) -> str:
        """The URL of the shared database; empty where SQLite files are used. Raises FoundryError for another kind."""
        url = os.environ.get(DATABASE, "").strip()
        if url and not url.startswith(("postgresql:", "postgresql+psycopg2:", "postgres:")):
            raise FoundryError(
                f"{DATABASE} names no PostgreSQL database",
                where=DATABASE,
                mend="set it to postgresql://user:password@host:5432/database, or unset it (then SQLite files are used)",
            )
        return url

    @property
    def ledger_url(self) -> str:
        return os.environ.get("FOUNDRY_LEDGER_URL") or self.database or f"sqlite:///{self.store / 'ledger.db'}"

    @property
    def responses_path(self) -> Path:
        """The response cache: a file, or the name that stands for the shared database (`lineage.database`)."""
        return self.store / (DATABASE if self.database else "responses.db")

    @property
    def money_path(self) -> Path:
        """The ledger of money, in the same way."""
        return self.store / (DATABASE if self.database else "money.db")

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
