"""Commands that give a trained model away: `foundry export-model`, `push-model`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foundry_pipeline.settings import load_settings

Run = Annotated[str, typer.Argument(help="a declared run, such as madison_r2")]
Types = Annotated[
    list[str] | None,
    typer.Option("--type", help="GGUF type: F16, Q8_0, Q5_K_M, Q4_K_M; may be repeated (default: Q4_K_M)"),
]
To = Annotated[Path | None, typer.Option(help="folder to write into (default: below .foundry/exports)")]


def export_model(
    run: Run,
    types: Types = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="adapter, merged, gguf, or lora (GGUF adapter over its quantized base); may be repeated"),
    ] = None,
    to: To = None,
) -> None:
    """Write a run's model as folders, each with a card: for PEFT, for transformers, for llama.cpp and Ollama."""
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.chain.model_exports import export_model as export

    d, chain = load_chain(load_settings())
    written = export(d, chain, run, parts=tuple(only or ()), types=tuple(types or ()), to=to)
    for part, (folder, missing) in written.items():
        print(f"{part}: {folder}", flush=True)
        if missing:
            print(f"  no Modelfile: {missing}", flush=True)


def push_model(
    run: Run,
    part: Annotated[str, typer.Argument(help="which folder: adapter, merged, gguf or lora")],
    repo: Annotated[str, typer.Option(help="where to: OWNER/NAME on the hub (HF_ENDPOINT, default huggingface.co)")],
    types: Types = None,
    public: Annotated[bool, typer.Option("--public", help="make a new repository public (default: private)")] = False,
    to: To = None,
) -> None:
    """Export one folder of a run and send it to a Hugging Face hub, under the name that you give."""
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.chain.model_exports import export_model as export
    from foundry_pipeline.export.push import push_folder

    d, chain = load_chain(load_settings())
    written = export(d, chain, run, parts=(part,), types=tuple(types or ()), to=to)
    for name, (folder, _) in written.items():
        print(f"{name}: {folder}", flush=True)
        print(f"sent: {push_folder(folder, repo, private=not public, message=f'{run}, {name}')}", flush=True)


def register(app: typer.Typer) -> None:
    """Add these commands to `foundry`."""
    app.command(name="export-model")(export_model)
    app.command(name="push-model")(push_model)
