"""What a GGUF file says of itself: run, data, adapter, base and licence, by name and by hash.

    origin.keys()   # → {"general.name": "madison_r2", "general.license": "apache-2.0",
                    #    "general.dataset.0.name": "madison_dataset_v6", "foundry.dataset_hash": "6c1790c1…", …}

`general.*` are the keys of the GGUF specification, which model hubs and programs show; `foundry.*` hold full hashes, by
which a file that has travelled is traced: `foundry trace` takes none of them back, but `foundry trace <run>_eval` prints
the same ones. Nothing here tells the time or a path, so that equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

PREFIX = "foundry."


@dataclass(frozen=True)
class Origin:
    """Where weights come from. Hashes are content hashes (SHA-256, hex); `base_version` is a package's or a revision.

    `stand_in` says that other weights than the declared `base` were trained; `base_title` names them. `parent` is the
    run whose merged model this one was trained on, `parent_hash` that model's; both empty where it was the base.
    """

    run: str
    character: str
    method: str
    profile: str
    dataset: str
    dataset_hash: str
    adapter_hash: str
    base: str
    base_title: str
    base_version: str
    base_url: str
    base_hash: str
    stand_in: bool
    license: str
    parent: str = ""
    parent_hash: str = ""

    def keys(self) -> dict[str, str]:
        """Key → value, in the order in which they are written. Empty values are left out."""
        general = {
            "general.name": self.run,
            "general.description": f"{self.character} by run {self.run}: {self.base_title}, tuned on {self.dataset}",
            "general.finetune": self.method,
            # The hub's licence identifiers are in lower case.
            "general.license": self.license.lower(),
        }
        own = {k: v for k, v in asdict(self).items() if k not in ("base_url", "stand_in")}
        told = {f"{PREFIX}{name}": str(value) for name, value in own.items()}
        told[f"{PREFIX}stand_in"] = "yes" if self.stand_in else "no"
        return {k: v for k, v in {**general, **told}.items() if v}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def origin_from(value: dict[str, Any]) -> Origin:
    """The inverse of `to_json`."""
    return Origin(**value)


def write_keys(writer: Any, origin: Origin) -> None:
    """Write an origin's keys into a `gguf.GGUFWriter`, with base model and dataset as the specification lists them.

    A key that the writer holds already keeps its place and gets the value from here.
    """
    for key, value in origin.keys().items():
        _put(writer, key, value)
    _list(writer, "base_model", [(origin.base_title, origin.base_version, origin.base_url)])
    _list(writer, "dataset", [(origin.dataset, origin.dataset_hash, "")])


def _list(writer: Any, what: str, entries: Iterable[tuple[str, str, str]]) -> None:
    listed = list(entries)
    _count(writer, f"general.{what}.count", len(listed))
    for i, (name, version, url) in enumerate(listed):
        for field, value in (("name", name), ("version", version), ("repo_url", url)):
            if value:
                _put(writer, f"general.{what}.{i}.{field}", value)


def _put(writer: Any, key: str, value: str) -> None:
    _forget(writer, key)
    writer.add_string(key, value)


def _count(writer: Any, key: str, value: int) -> None:
    _forget(writer, key)
    writer.add_uint32(key, value)


def _forget(writer: Any, key: str) -> None:
    # GGUFWriter refuses nothing and only warns of a key written twice; programs then read either.
    for shard in writer.kv_data:
        shard.pop(key, None)
