"""`foundry doctor`: does this machine have what the profile's trainings and remote models need?

    findings(d, settings)   → [{"what": "GPUs", "ok": False, "found": "…", "mend": "…"}, …]

Nothing is loaded that is heavier than torch, no GPU is used and nobody is asked over a network.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import Any

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.assets import HubModel
from foundry_pipeline.settings import Settings

# Bytes a parameter of what one run writes in 16 bits: merged weights and the four GGUF files.
_RUN_BYTES = 2.0 + 2.0 + (8.5 + 5.7 + 4.9) / 8
_BASE_BYTES = 2.0


def findings(d: Declarations, chain: Chain, settings: Settings) -> list[dict[str, Any]]:
    """What the profile's `compute`, models, teacher and judge need, item by item."""
    out = [_device(d)]
    out += [item for item in (_bitsandbytes(d), _weights(d, chain, settings), *_keys(d)) if item]
    return out


def _device(d: Declarations) -> dict[str, Any]:
    import torch

    compute, wanted = d.profile.compute, d.profile.compute.processes or 1
    cuda: Any = torch.cuda
    names = [str(cuda.get_device_name(i)) for i in range(cuda.device_count())] if cuda.is_available() else []
    built = f"torch {torch.__version__}, " + (
        f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    )
    out: dict[str, Any] = {
        "what": "trains on",
        "ok": True,
        "found": f"{names[0] if names else 'the processor'} ({built})",
        "mend": "",
    }
    if compute.device == "cpu" or (compute.device == "auto" and not names):
        return out | {"found": f"the processor ({built})"}
    if len(names) < wanted:
        out |= {"ok": False, "found": f"{wanted} on this node declared, {len(names)} seen ({built})"}
        if torch.version.cuda is None:
            out["mend"] = "install the build of this torch version for CUDA (constraints.txt has the version)"
        else:
            out["mend"] = "see that the driver lists them (nvidia-smi), or declare fewer `compute.processes`"
        return out | {"what": "GPUs"}
    held = min(int(cuda.get_device_properties(i).total_memory) for i in range(wanted)) / 2**30
    out["found"] = f"{wanted} × {names[0]}, {held:.0f} GiB ({built})"
    planned = d.profile.planning.gpu
    if planned and held < planned.memory_gib * 0.95:
        out |= {"ok": False, "mend": "put this GPU into `planning.gpu` of the profile, then: foundry plan"}
        out["found"] += f"; the profile is planned for {planned.memory_gib:g} GiB"
    return out


def _bitsandbytes(d: Declarations) -> dict[str, Any] | None:
    needs = [n for n, used in (("optimizer adamw_8bit", d.profile.optimizer == "adamw_8bit"),
                               ("weights nf4", d.profile.compute.weights == "nf4")) if used]  # fmt: skip
    if not needs:
        return None
    there = importlib.util.find_spec("bitsandbytes") is not None
    found = f"{' and '.join(needs)}: the package is {'there' if there else 'missing'}"
    return {"what": "bitsandbytes", "ok": there, "found": found, "mend": "" if there else "pip install -e '.[gpu]'"}


def _weights(d: Declarations, chain: Chain, settings: Settings) -> dict[str, Any] | None:
    """Room for the bases that are not built yet and for one run of the largest."""
    from foundry_pipeline.chain.model_stages import base_asset

    used = {d.base_model(run.base) for run in d.runs.values()}
    models = {name: model for name, model in d.profile.models.items() if name in used and isinstance(model, HubModel)}
    if not models:
        return None
    absent = [name for name in sorted(models) if chain.resolve(base_asset(name)).record is None]
    needed = _BASE_BYTES * sum(models[name].parameters for name in absent)
    needed += _RUN_BYTES * max(model.parameters for model in models.values())
    free = shutil.disk_usage(settings.store if settings.store.exists() else settings.root).free
    fetched = ", ".join(f"{models[n].repo} ({_BASE_BYTES * models[n].parameters / 1e9:.0f} GB)" for n in absent)
    found = f"{'to be fetched: ' + fetched if fetched else 'every base is built'}; with one run of the largest "
    found += f"{needed / 1e9:.0f} GB are needed, {free / 1e9:.0f} GB are free"
    mend = "" if free > needed else "set FOUNDRY_STORE to a folder on a larger disk"
    if fetched and os.environ.get("FOUNDRY_OFFLINE") == "1":
        mend = "unset FOUNDRY_OFFLINE: these weights come from a model hub"
    return {"what": "weights", "ok": not mend, "found": found, "mend": mend}


def _keys(d: Declarations) -> list[dict[str, Any]]:
    from foundry_pipeline.models.remote.service import KEYS

    asked: dict[str, Any] = {"teacher": d.profile.teacher}
    if d.profile.judge in d.profile.judges:
        asked["judge"] = d.profile.judges[d.profile.judge]
    out = []
    for who, told in asked.items():
        variable = {"claude": KEYS["anthropic"], "openai": KEYS["openai"]}.get(told.kind)
        own_server = bool(getattr(getattr(told, "remote", None), "base_url", None))
        if variable is None or (told.kind == "openai" and own_server):
            continue
        there = bool(os.environ.get(variable, "").strip())
        found = f"{told.kind} ({told.model}): {variable} is {'set' if there else 'not set'}"
        out.append({"what": who, "ok": there, "found": found, "mend": "" if there else f"export {variable}=…"})
    return out
