"""Where the project, its store and its profile are; read from the environment once per call, never cached.

`FOUNDRY_ROOT`     project folder (default: the nearest parent of the working directory with `sources/` and `assets/`)
`FOUNDRY_STORE`    a folder (default: `.foundry` in the project folder), or the URL of a shared store, such as
                   `s3://bucket/prefix`: whatever fsspec knows. What a build gives lies there and may be had by every
                   machine: artifacts, index, verdicts, marks of collapsed trainings, fetched source texts
`FOUNDRY_CACHE`    with a shared store, the folder on this machine (default: `.foundry` in the project folder). It holds
                   copies of what was needed here, and what is this machine's own: ledger, response cache and budget
                   (unless they are in a database of their own), embeddings, unfinished work, locks, reports, exports
`FOUNDRY_STORE_OPTIONS`  a JSON object for fsspec (`{"endpoint_url": …}`), beside the usual variables of the provider
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
from urllib.parse import unquote, urlsplit

from foundry_pipeline.errors import FoundryError

DATABASE = "FOUNDRY_DATABASE"


@dataclass(frozen=True)
class Settings:
    """The places everything else is found from. `store` is always a folder on this machine; `url` names the shared
    store that it is a cache of, and is empty where there is none."""

    root: Path
    store: Path
    profile: str
    url: str = ""

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
    store, url = store_places(os.environ.get("FOUNDRY_STORE") or "", os.environ.get("FOUNDRY_CACHE") or "", root)
    return Settings(root=root, store=store, profile=os.environ.get("FOUNDRY_PROFILE") or "laptop", url=url)


def store_places(store: str, cache: str, root: Path) -> tuple[Path, str]:
    """Folder on this machine and URL of the shared store (empty where there is none).

    Raises FoundryError for a URL without a place in it, or with a secret, which belongs into the environment.
    """
    parts = urlsplit(store)
    if "://" not in store:
        return Path(store or root / ".foundry").resolve(), ""
    if parts.scheme in ("file", "local"):
        return Path(unquote(parts.path)).resolve(), ""
    if not parts.netloc or parts.password is not None:
        what = "holds a password" if parts.password is not None else "names no bucket or host"
        raise FoundryError(
            f"FOUNDRY_STORE {what}",
            where=f"{parts.scheme}://…",
            mend="give a folder or a URL such as s3://bucket/prefix; secrets go into the provider's variables "
            "(AWS_SECRET_ACCESS_KEY, …) or into FOUNDRY_STORE_OPTIONS",
        )
    return Path(cache or root / ".foundry").resolve(), store.rstrip("/")
