"""Weights into other forms, as a script: `python -m foundry_pipeline.export.export SPEC.json`.

{"stage": "dense", "model": {…}}                       packaged or hub weights → result/dense; packaged: base.gguf (BF16)
{"stage": "merge", "base_dir": …, "adapter_dir": …}    adapter + base → result, a merged folder
{"stage": "gguf", "model_dir": …, "model_name": …, "types": ["f16", …], "metadata": {"general.description": …}}
                                                       folder → result/<type>.gguf; `metadata` may be left out.
                                                       With "origin": {…} the files say where they come from; with
                                                       "adapter_dir": … the adapter alone becomes result/lora.gguf;
                                                       with "imatrix": {"parquet": …, "tokens": 16384} the smaller types
                                                       are rounded by the importance of their inputs over that text
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from foundry_pipeline.declarations.assets import HubModel, PypiModel
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.gguf import write_bfloat16, write_gguf
from foundry_pipeline.export.gguf_keys import Origin, origin_from
from foundry_pipeline.export.imatrix import measure
from foundry_pipeline.export.lora_gguf import FILE as LORA_FILE
from foundry_pipeline.export.lora_gguf import unknown_layout, write_lora_gguf
from foundry_pipeline.export.merge import merge
from foundry_pipeline.launch import ScriptSession, atomic_folder, leave, script_main
from foundry_pipeline.models.base import fetch_hub, make_dense, pypi_file


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
            importance = None
            if told := spec.get("imatrix"):
                session.log(f"weighing inputs by {told['tokens']} tokens of training text")
                importance = measure(
                    Path(spec["model_dir"]), Path(told["parquet"]), tokens=int(told["tokens"]), log=session.log
                )
            origin = origin_from(spec["origin"]) if spec.get("origin") else None
            adapter: dict[str, Any] = {}
            sizes = write_gguf(
                Path(spec["model_dir"]),
                out,
                types=spec["types"],
                name=spec["model_name"],
                threads=int(spec.get("threads", 2)),
                metadata=spec.get("metadata"),
                origin=origin,
                importance=importance,
                meanwhile=lambda: adapter.update(adapter_file(spec, origin, out, session)),
            )
            weighed = {} if importance is None else {"imatrix": importance.facts()}
            return {"bytes_by_type": sizes, **weighed, **adapter}
        raise FoundryError(f"no export stage `{spec['stage']}`", where="stage", mend="dense, merge or gguf")


def adapter_file(spec: dict[str, Any], origin: Origin | None, out: Path, session: ScriptSession) -> dict[str, Any]:
    """Write the adapter that the spec names, if any, to `out`; facts, with the reason where llama.cpp could not read it."""
    if "adapter_dir" not in spec:
        return {}
    model = Path(spec["model_dir"])
    if reason := unknown_layout(model):
        # The merged files are whole without it; what is missing is said where they are looked at.
        session.log(f"no {LORA_FILE}: {reason}")
        return {"lora": None, "lora_missing": reason}
    return {"lora": write_lora_gguf(Path(spec["adapter_dir"]), model, out / LORA_FILE, origin)}


def _dense(declared: dict[str, Any], out: Path, download: Path, session: ScriptSession) -> dict[str, Any]:
    adapter: TypeAdapter[PypiModel | HubModel] = TypeAdapter(PypiModel | HubModel)
    model = adapter.validate_python(declared)
    if isinstance(model, PypiModel):
        session.log(f"dequantizing {model.package} {model.version} into full precision, once")
        facts = make_dense(model, out / "dense")
        # The untuned student is decoded by llama.cpp, in batches half as fast again from bfloat16 as from float16 or
        # from the packaged file; and these are the dense copy's own numbers.
        session.log("the same as GGUF in bfloat16, for batched decoding")
        write_bfloat16(pypi_file(model), out / "base.gguf", threads=2)
        return facts
    session.log(f"fetching {model.repo} at {model.revision}")
    return fetch_hub(model, out / "dense", partial=download)


if __name__ == "__main__":
    leave(script_main(run))
