"""What the documentation page holds: manifest and catalog joined, every long text once.

    page_data(manifest, catalog, chain, d)["assets"][0]["description"]    → 3    (a place in its `texts`)

A hundred runs share their kind's descriptions, columns, checks and code, and most of their compiled declaration, so the
page holds each text once and refers to it by number. What a browser would obey without showing it (control characters,
marks that turn the direction of reading) is written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.docs.code import built_by
from foundry_pipeline.docs.values import all_visible, visible

LONGEST = 12_000  # characters of one declared field that the page shows; the whole is in manifest.json
LARGEST_FILE = 60_000  # bytes of a YAML file that the page shows as written


class Texts:
    """Texts by number; the same text always has the same one."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._known: dict[str, int] = {}

    def add(self, text: str) -> int:
        shown = visible(text)
        if shown not in self._known:
            self._known[shown] = len(self.all)
            self.all.append(shown)
        return self._known[shown]


class _Fields:
    """Declared values as YAML; what the manifest refers to is written once."""

    def __init__(self, texts: Texts, values: Mapping[str, Any]) -> None:
        self.texts, self.values = texts, values
        self._known: dict[tuple[str, str], int] = {}

    def add(self, name: str, value: Any) -> int:
        refers = value.get("$ref") if isinstance(value, dict) else None
        key = (name, refers.rsplit("/", 1)[-1] if isinstance(refers, str) else "")
        if key[1] not in self.values:
            return self.texts.add(shortened(as_yaml({name: value})))
        if key not in self._known:
            self._known[key] = self.texts.add(shortened(as_yaml({name: self.values[key[1]]})))
        return self._known[key]


def as_yaml(value: Any) -> str:
    """A value as YAML, keys in their own order, every letter as itself."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, width=110)
    return text.rstrip("\n")


def shortened(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    cut = text[:LONGEST].rsplit("\n", 1)[0]
    return f"{cut}\n# … {len(text) - len(cut):,} characters more; the whole is in manifest.json"


def page_data(manifest: Mapping[str, Any], catalog: Mapping[str, Any], chain: Chain, d: Declarations) -> dict[str, Any]:
    """The values that `site.js` reads. Raises nothing of its own: both documents are whole by now."""
    texts = Texts()
    fields = _Fields(texts, manifest["values"])
    modules = {name: i for i, name in enumerate(manifest["modules"])}
    functions = {}
    for name in manifest["assets"]:
        if name in chain.stages:
            f = built_by(chain.stages[name])
            functions[f"{f.module}:{f.name}"] = [f.module, f.name, f.line, texts.add(f.source)]
    assets = [
        _asset(name, declared, catalog["assets"][name], texts, fields, modules)
        for name, declared in manifest["assets"].items()
    ]
    files = sorted({path for a in manifest["assets"].values() for path in a.get("files", ())})
    data = {
        "profile": manifest["profile"],
        "groups": [
            {"name": name, "title": g["title"], "description": texts.add(g["description"]), "owners": g["owners"]}
            for name, g in manifest["groups"].items()
        ],
        "kinds": {kind: _kind(k, texts) for kind, k in manifest["kinds"].items()},
        "modules": [[name, texts.add(summary)] for name, summary in manifest["modules"].items()],
        "functions": dict(sorted(functions.items())),
        "files": {path: texts.add(text) for path in files if (text := _written(d, path)) is not None},
        "assets": assets,
    }
    return {**all_visible(data), "texts": texts.all}


def _written(d: Declarations, path: str) -> str | None:
    """A declaration as its file has it; None for a folder and for what is too large to be read in a page."""
    file = d.root / path
    if not file.is_file() or file.stat().st_size > LARGEST_FILE:
        return None
    return file.read_text(encoding="utf-8")


def _kind(kind: Mapping[str, Any], texts: Texts) -> dict[str, Any]:
    return {
        "group": kind["group"],
        "description": texts.add(kind["description"]),
        "tables": [
            {
                "name": name,
                "description": texts.add(t["description"]),
                "optional": t["optional"],
                "columns": [[c, x["type"], texts.add(x["description"])] for c, x in t["columns"].items()],
            }
            for name, t in kind["tables"].items()
        ],
    }


def _asset(
    name: str,
    declared: Mapping[str, Any],
    built: Mapping[str, Any],
    texts: Texts,
    fields: _Fields,
    modules: Mapping[str, int],
) -> dict[str, Any]:
    effective = declared.get("effective") or {}
    build = declared.get("built_by")
    return {
        "name": name,
        **{k: declared[k] for k in ("group", "kinds", "owners", "parents", "code_version", "pool", "automation")},
        **{k: declared.get(k) for k in ("kind", "character", "run")},
        "description": texts.add(declared["description"]),
        "own": texts.add(declared.get("own_description", "")),
        "partitions": declared["partitions"],
        "files": declared.get("files", []),
        "declaration": [[k, fields.add(k, v)] for k, v in declared.get("declaration", {}).items()],
        "effective": [[k, fields.add(k, v)] for k, v in effective.items()],
        "modules": [modules[m] for m in declared.get("modules", ())],
        "built_by": f"{build['module']}:{build['function']}" if build else None,
        "checks": [
            [check, c["blocking"], texts.add(c["description"]), _result(built["checks"].get(check))]
            for check, c in declared["checks"].items()
        ],
        "built": {k: v for k, v in built.items() if k not in ("checks", "tables", "facts", "why")},
        "why": built["why"],
        "rows": {t: x["rows"] for t, x in built.get("tables", {}).items()},
        "facts": built.get("facts", {}),
    }


def _result(result: Mapping[str, Any] | None) -> list[Any] | None:
    if result is None:
        return None
    return [result[k] for k in ("outcome", "at", "on_latest", "told_by", "description", "observed", "bound")]
