"""Weights into other forms, as a script: `python -m foundry_pipeline.export.export SPEC.json`.

{"stage": "dense", "model": {…}}                       packaged or hub weights → result/dense; packaged: base.gguf (F16)
{"stage": "merge", "base_dir": …, "adapter_dir": …}    adapter + base → result, a merged folder
{"stage": "gguf", "model_dir": …, "model_name": …, "types": ["f16", …], "metadata": {"general.description": …}}
                                                       folder → result/<type>.gguf; `metadata` may be left out
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from foundry_pipeline.declarations.assets import HubModel, PypiModel
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.gguf import write_gguf
from foundry_pipeline.export.merge import merge
from foundry_pipeline.launch import ScriptSession, atomic_folder, script_main
from foundry_pipeline.models.base import fetch_hub, make_dense


def run(spec: dict[str, Any], session: ScriptSession) -> dict[str, Any]:
    """Do the stage that the spec names; returns its facts."""
    # Bars of libraries that draw them unasked; heeded by those that are loaded from here on.
    os.environ.setdefault("TQDM_DISABLE", "1")
    with atomic_folder(Path(spec["work"]) / "result") as out:
        if spec["stage"] == "dense":
            return _dense(spec["model"], out, Path(spec["work"]) / "download", session)
        if spec["stage"] == "merge":
            session.log("merging in 32 bits")
            return merge(Path(spec["base_dir"]), Path(spec["adapter_dir"]), out)
        if spec["stage"] == "gguf":
            session.log(f"converting to {', '.join(spec['types'])}")
            sizes = write_gguf(
                Path(spec["model_dir"]),
                out,
                types=spec["types"],
                name=spec["model_name"],
                threads=int(spec.get("threads", 2)),
                metadata=spec.get("metadata"),
            )
            return {"bytes_by_type": sizes}
        raise FoundryError(f"no export stage `{spec['stage']}`", where="stage", mend="dense, merge or gguf")


def _dense(declared: dict[str, Any], out: Path, download: Path, session: ScriptSession) -> dict[str, Any]:
    adapter: TypeAdapter[PypiModel | HubModel] = TypeAdapter(PypiModel | HubModel)
    model = adapter.validate_python(declared)
    if isinstance(model, PypiModel):
        session.log(f"dequantizing {model.package} {model.version} into full precision, once")
        facts = make_dense(model, out / "dense")
        # The untuned student is decoded by llama.cpp, which is fastest here from 16 bits.
        session.log("converting it to GGUF for batched decoding")
        write_gguf(out / "dense", out, types=("f16",), name=model.file, threads=2)
        (out / "f16.gguf").rename(out / "base.gguf")
        return facts
    session.log(f"fetching {model.repo} at {model.revision}")
    return fetch_hub(model, out / "dense", partial=download)


if __name__ == "__main__":
    sys.exit(script_main(run))
