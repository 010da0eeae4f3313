"""Where a run's exported weights come from, as its files carry it.

declared_origin(d, run)                            # names, licence, base: what the declarations say
origin(declared_origin(d, run), run, inputs)       # with the content hashes of what it was built from
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.assets import HubModel, PypiModel, Run
from foundry_pipeline.export.gguf_keys import Origin

HUB = "https://huggingface.co/"


def declared_origin(d: Declarations, run: Run) -> dict[str, Any]:
    """The part of an `Origin` that stands in the declarations."""
    model = d.profile.models[d.base_model(run.base)]
    return {
        # What is drawn from a model, and how often it is judged, leaves its files as they are.
        "run": d.variants[run.run].weights if run.run in d.variants else run.run,
        "character": d.characters[run.character].character.name,
        "method": run.method,
        "profile": d.profile.profile,
        "dataset": run.dataset,
        "base": run.base,
        "base_title": model.title,
        "base_version": model.revision if isinstance(model, HubModel) else f"{model.package} {model.version}",
        "base_url": f"{HUB}{model.repo}" if isinstance(model, HubModel) else "",
        "stand_in": isinstance(model, PypiModel),
        "license": model.license,
        "parent": run.start_from or "",
    }


def origin(declared: Mapping[str, Any], base: str, contents: Mapping[str, str]) -> Origin:
    """The whole of it. `contents` maps asset → content hash and holds the run's dataset and adapter, `base` (the asset
    of its base model) and the merged model of the run that it started from, where there is one."""
    parent = declared["parent"]
    return Origin(
        **declared,
        dataset_hash=contents[declared["dataset"]],
        adapter_hash=next(sha for name, sha in contents.items() if name.endswith("_adapter")),
        base_hash=contents[base],
        parent_hash=contents[f"{parent}_merged"] if parent else "",
    )
