"""The card of a dataset version: README.md with the front matter that the Hugging Face hub reads.

    ---
    pretty_name: madison_dataset_v6
    license: other
    language: [en]
    configs: [{config_name: pairs, default: true, data_files: …}, …]
    ---
    # madison_dataset_v6
    …recipe, sources by hash, filters, checks, limits, held-out text…

Everything is told from values handed over here; nothing is read, and equal values give the same bytes. Titles of
documents and texts of rows may hold anything: they are escaped for Markdown, and a fence is longer than any within.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_pipeline.plain import plain

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE = "card.md.jinja"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10**7, "1M<n<10M"))
LISTED = 60  # documents named one by one; all of them stand in provenance.json
EXAMPLE_WORDS = 60
LICENSES = "LICENSES.md"


@dataclass(frozen=True)
class SourceDocument:
    """A document that passages were cut from; `used` counts its passages in this dataset."""

    document_id: str
    source: str
    title: str
    author: str
    date: str
    license: str
    url: str
    raw_sha256: str
    role: str
    held_out: bool
    used: int


@dataclass(frozen=True)
class CardData:
    """What a card says. `shape` is that of `datasets.shape`, `facts` the builder's, `verdict` that of the data checks.

    models: who wrote which side, name in the data → what it is and under which licence.
    """

    name: str
    description: str
    character: str
    method: str
    order: str
    license: str | None
    content_hash: str
    profile: str
    size_factor: float
    shape: dict[str, Any]
    facts: dict[str, Any]
    documents: list[SourceDocument]
    held_out: tuple[str, ...]
    models: dict[str, dict[str, str]]
    verdict: dict[str, Any] | None
    sieve: dict[str, Any] | None
    filters: dict[str, Any]
    unserved: dict[str, str]
    inputs: dict[str, str]
    language: str = "en"
    tokenizer: str | None = None
    example: dict[str, Any] | None = None
    columns: dict[str, str] = field(default_factory=dict)


def size_category(rows: int) -> str:
    """The hub's name for a number of rows."""
    return next((name for bound, name in SIZES if rows < bound), "10M<n<100M")


def front_matter(data: CardData) -> dict[str, Any]:
    """The fields that the Hugging Face hub reads from a dataset's README."""
    preference = data.method == "preference"
    license_fields = (
        {"license": data.license}
        if data.license
        else {"license": "other", "license_name": "licences-of-its-sources", "license_link": LICENSES}
    )
    return {
        "pretty_name": data.name,
        **license_fields,
        "language": [data.language],
        "size_categories": [size_category(data.shape["rows"])],
        "task_categories": ["text-generation"],
        "tags": ["trl", *(["preference", "dpo", "orpo"] if preference else ["sft"]), "character", "primary-sources"],
        "configs": [
            {
                "config_name": name,
                **({"default": True} if name == "pairs" else {}),
                "data_files": [{"split": "train", "path": f"{name}/train-*.parquet"}],
            }
            for name in ("pairs", "conversational")
        ],
    }


@cache
def _environment() -> Environment:
    """Made once: a template is compiled once a process, which takes longer than to render it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown: every text of unknown origin goes through `cell` or `fence`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": cell, "code": code, "count": lambda n: "–" if n is None else f"{n:,}", "link": link}
    return environment


def render_card(data: CardData) -> str:
    """README.md. Pure: equal values give the same text."""
    import yaml

    used = [x for x in data.documents if x.used]
    template = _environment().get_template(TEMPLATE)
    body = template.render(
        d=data,
        used=used,
        listed=used[:LISTED],
        sources=_by_source(used),
        example=fence(_short(data.example)) if data.example else "",
        failed=[r["name"] for r in (data.verdict or {}).get("results", []) if not r["passed"]],
        licenses=LICENSES,
    )
    head = yaml.safe_dump(front_matter(data), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{head}---\n{body}"


def render_licenses(data: CardData) -> str:
    """LICENSES.md: under which terms the sources and the models' answers stand, each named once."""
    used = _by_source([x for x in data.documents if x.used])
    lines = [f"# Licences of {cell(data.name)}", "", "## Primary sources", ""]
    lines += [f"- {cell(s['source'])} ({cell(s['author'])}): {cell(s['license'])}" for s in used] or ["- none"]
    lines += ["", "## Models that wrote answers", ""]
    told = [f"- {cell(n)}: {cell(m['what'])}; licence: {cell(m['license'])}" for n, m in data.models.items()]
    return "\n".join([*lines, *(told or ["- none"]), ""])


def provenance(data: CardData) -> dict[str, Any]:
    """provenance.json: everything by its full hash, for machines."""
    return {
        "foundry": "dataset export",
        "dataset": data.name,
        "content_hash": data.content_hash,
        "profile": data.profile,
        "size_factor": data.size_factor,
        "method": data.method,
        "order": data.order,
        "inputs": data.inputs,
        "recipe": data.facts.get("parts", []),
        "filters": {"thresholds": data.filters, "result": data.sieve},
        "checks": data.verdict,
        "models": data.models,
        "documents": [x.__dict__ for x in data.documents],
        "held_out": list(data.held_out),
        "shape": data.shape,
    }


_SPECIAL = re.compile(r"([\\`*_\[\]|~#!])")


def cell(value: Any) -> str:
    """A text of unknown origin inside Markdown: one line, no markup, no HTML, no hidden marks."""
    text = " ".join(plain(str(value)).replace("⏎", " ").split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", text)


def code(value: Any) -> str:
    """A name of unknown origin as a code span; nothing in it can close the span."""
    return "`" + " ".join(plain(str(value)).replace("`", "'").replace("|", "/").split()) + "`"


def link(url: str) -> str:
    """A web address that may stand between angle brackets, else nothing."""
    return url if re.fullmatch(r"https?://[^\s<>\"'`\\\x00-\x1f]+", url) else ""


def fence(text: str) -> str:
    """A code block that its content cannot close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}json\n{text}\n{ticks}"


def _short(row: dict[str, Any]) -> str:
    cut = {}
    for name, value in row.items():
        if isinstance(value, str):
            words = plain(value).replace("⏎", " ").split(" ")
            value = " ".join(words[:EXAMPLE_WORDS]) + (" …" if len(words) > EXAMPLE_WORDS else "")
        cut[name] = value
    return json.dumps(cut, indent=1, ensure_ascii=False)


def _by_source(documents: list[SourceDocument]) -> list[dict[str, Any]]:
    out: dict[tuple[str, str, str], dict[str, Any]] = {}
    for x in documents:
        key = (x.source, x.author, x.license)
        entry = out.setdefault(
            key, {"source": x.source, "author": x.author, "license": x.license, "documents": 0, "used": 0}
        )
        entry["documents"] += 1
        entry["used"] += x.used
    return [out[key] for key in sorted(out)]
