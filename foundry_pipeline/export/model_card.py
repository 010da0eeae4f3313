"""The card of an exported model: README.md with the front matter that the Hugging Face hub reads.

    ---
    license: apache-2.0
    library_name: peft
    tags: [character, orpo, lora]
    ---
    # madison_r2, adapter
    …what it is, how to use it, data by version and hash, scores with intervals and judge, limits…

Everything is told from values handed over; nothing is read, and equal values give the same bytes. Names and texts may
hold anything: they are escaped for Markdown as in a dataset's card.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from foundry_pipeline.datasets.card import CardData as DatasetCard
from foundry_pipeline.datasets.card import cell, code, link
from foundry_pipeline.export.gguf_keys import Origin
from foundry_pipeline.export.parity_verdict import DELTA_CHECK
from foundry_pipeline.statistics.stated import number, stated

Part = Literal["adapter", "merged", "gguf", "lora"]
TEMPLATE = "model_card.md.jinja"
COMPONENTS = ("voice", "rhetorical", "historical", "position", "integrity")
_LIBRARY = {"adapter": "peft", "merged": "transformers", "gguf": "gguf", "lora": "gguf"}
# How the hub names what was done to the base.
_RELATION = {"adapter": "adapter", "merged": "finetune", "gguf": "quantized", "lora": "adapter"}
_HUB_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True)
class ModelFile:
    """A file of the folder that holds weights: its name, its bytes, its SHA-256 and what it is."""

    name: str
    bytes: int
    sha256: str
    what: str


@dataclass(frozen=True)
class ModelCard:
    """What a card says.

    `hashes` are content hashes of this run's artifacts by kind (adapter, merged, gguf); `training` what held in training
    (the effective declaration) and `facts` what the trainer counted. `summary` is an evaluation's, of all serving modes,
    or None where none was made; `evaluated` names its content hash. `parity` is the verdict of export parity beside the
    files. `declared_model` is the base that the run's declaration names; the origin's title names what was trained.
    """

    part: Part
    origin: Origin
    description: str
    parameters: int
    repo: str
    declared_size_factor: float
    hashes: dict[str, str]
    files: tuple[ModelFile, ...]
    training: dict[str, Any]
    facts: dict[str, Any]
    dataset: DatasetCard
    summary: dict[str, Any] | None
    evaluated: str
    confidence: float
    parity: dict[str, Any] | None
    mode_titles: dict[str, str] = field(default_factory=dict)
    modelfile: bool = False
    language: str = "en"


def front_matter(card: ModelCard) -> dict[str, Any]:
    """The fields that the hub reads from a model's README."""
    license_id = card.origin.license.lower()
    known = _HUB_LICENSE.fullmatch(license_id)
    licensed = (
        {"license": license_id}
        if known
        else {"license": "other", "license_name": " ".join(card.origin.license.split())}
    )
    # The hub links a base by its repository. A stand-in has none, and naming the declared base would be untrue.
    based = (
        {"base_model": [card.repo], "base_model_relation": _RELATION[card.part]}
        if card.repo and not card.origin.parent
        else {}
    )
    tags = ["character", "primary-sources", card.origin.method, *(["lora"] if card.part in ("adapter", "lora") else [])]
    return {
        "pretty_name": f"{card.origin.run} ({card.part})",
        **licensed,
        "language": [card.language],
        "library_name": _LIBRARY[card.part],
        "pipeline_tag": "text-generation",
        **based,
        "tags": [*tags, *(["stand-in-base"] if card.origin.stand_in else [])],
    }


def render_model_card(card: ModelCard) -> str:
    """README.md. Pure: equal values give the same text."""
    import yaml
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown: every text of unknown origin goes through `cell` or `code`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "cell": cell,
        "code": code,
        "link": link,
        "count": _count,
        "number": number,
        "stated": stated,
        "size": _size,
    }
    body = environment.get_template(TEMPLATE).render(
        c=card,
        o=card.origin,
        rows=score_rows(card),
        components=component_rows(card),
        sources=_sources(card.dataset),
        failed=[r["name"] for r in _results(card) if not r["passed"] and r.get("severity") != "warn"],
        agreement=[r for r in _results(card) if r["name"].startswith("agreement_")],
        drowned=next((r["observed"] for r in _results(card) if r["name"] == DELTA_CHECK and not r["passed"]), ""),
        percent=f"{card.confidence:.0%}",
    )
    head = yaml.safe_dump(front_matter(card), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{head}---\n{body}"


def _results(card: ModelCard) -> list[dict[str, Any]]:
    """The checks of export parity, where there is a verdict."""
    return list((card.parity or {}).get("results", []))


def score_rows(card: ModelCard) -> list[dict[str, Any]]:
    """One row for each serving mode that was judged, the untuned base first."""
    if card.summary is None:
        return []
    modes, paired = card.summary["modes"], card.summary.get("paired", {})
    return [
        {
            "mode": card.mode_titles.get(mode, mode),
            "overall": modes[mode]["overall"],
            "paired": paired.get(mode),
            "critical": modes[mode]["critical_failures"],
            "unscored": modes[mode]["unscored"],
            "nats": modes[mode].get("nats_per_token"),
        }
        for mode in sorted(modes, key=lambda mode: mode != "base")
    ]


def component_rows(card: ModelCard) -> list[dict[str, Any]]:
    """What the overall score is made of, by serving mode; empty where nothing was judged."""
    modes = card.summary["modes"] if card.summary else {}
    named = [n for n in COMPONENTS if any(n in m.get("components", {}) for m in modes.values())]
    return [
        {
            "mode": card.mode_titles.get(mode, mode),
            "values": {n: modes[mode].get("components", {}).get(n, {}).get("mean") for n in named},
        }
        for mode in sorted(modes, key=lambda mode: mode != "base")
        if named
    ]


def _sources(data: DatasetCard) -> list[dict[str, Any]]:
    found: dict[tuple[str, str, str], int] = {}
    for x in data.documents:
        if x.used:
            key = (x.source, x.author, x.license)
            found[key] = found.get(key, 0) + x.used
    return [{"source": s, "author": a, "license": n, "used": found[s, a, n]} for s, a, n in sorted(found)]


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _size(value: float) -> str:
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"
