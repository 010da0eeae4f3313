"""What a user takes away: folders for `transformers`, PEFT, llama.cpp and Ollama, each whole in itself.

    adapter/   adapter_config.json, adapter_model.safetensors, tokenizer and chat template, README.md, provenance.json
    merged/    the merged model as `transformers` reads it,                              README.md, provenance.json
    gguf/      <run>-Q4_K_M.gguf, Modelfile,                                             README.md, provenance.json
    lora/      base-Q4_K_M.gguf, <run>-lora-F32.gguf, Modelfile,                         README.md, provenance.json

Files of weights are copied from the store byte for byte; the base of `lora/` is converted and quantized on the spot. Nothing tells the time, so equal artifacts give equal folders.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry_pipeline.declarations.common import Sampling
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.chat_shape import ChatShape, chat_shape
from foundry_pipeline.export.gguf import declared_ends, write_gguf
from foundry_pipeline.export.lora_gguf import FILE as LORA_FILE
from foundry_pipeline.export.model_card import ModelCard, ModelFile, Part, render_model_card
from foundry_pipeline.export.modelfile import ModelfileData, modelfile, stops
from foundry_pipeline.export_folder import write_export
from foundry_pipeline.lineage.hashing import file_hash
from foundry_pipeline.models.base import quiet_transformers, require_space

PARTS: tuple[Part, ...] = ("adapter", "merged", "gguf", "lora")
MARKER = "provenance.json"
_SIDE = (
    "tokenizer*",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.jinja",
    "LICENSE*",
)


@dataclass(frozen=True)
class Weights:
    """Where a run's weights lie: payload folders of its artifacts, and the GGUF types to take (`q4_k_m`, …).

    `start` holds the full-precision weights that the adapter was trained on: the base's, or an earlier run's merged ones.

    `base_repo` and `base_revision` are where a hub has the base of the adapter; empty where no hub has it. `hashes` are
    SHA-256 of files of all three folders by path within them, as their manifests have them.
    """

    adapter: Path
    merged: Path
    gguf: Path
    start: Path
    types: tuple[str, ...]
    sampling: Sampling
    base_repo: str
    base_revision: str
    hashes: Mapping[str, str]


def write_model(part: Part, weights: Weights, card: ModelCard, target: Path) -> tuple[Path, str]:
    """Write one of the folders, or nothing; an earlier export at `target` is replaced.

    Returns (where it is, why it has no Modelfile or ""). Raises FoundryError when `target` holds something else, or the
    disk has too little room.
    """
    told = ""

    def fill(folder: Path) -> None:
        nonlocal told
        if part in ("gguf", "lora"):
            files, told = (_gguf if part == "gguf" else _lora)(folder, weights, card)
        else:
            files = (_adapter if part == "adapter" else _merged)(folder, weights)
        full = dataclasses.replace(card, files=tuple(files), modelfile=(folder / "Modelfile").is_file())
        (folder / "README.md").write_text(render_model_card(full), encoding="utf-8")
        (folder / MARKER).write_text(_json(provenance(full)), encoding="utf-8")
        for path in folder.iterdir():
            path.chmod(0o644)

    require_space(target.parent, sum(p.stat().st_size for p in _taken(part, weights)))
    return write_export(target, marker=MARKER, fill=fill, what="a model"), told


def provenance(card: ModelCard) -> dict[str, Any]:
    """Everything by its full hash, for machines."""
    return {
        "foundry": "model export",
        "part": card.part,
        "origin": card.origin.to_json(),
        "content_hashes": card.hashes,
        "files": {f.name: {"sha256": f.sha256, "bytes": f.bytes, "what": f.what} for f in card.files},
        "training": {"effective": card.training, "counted": card.facts},
        "dataset": {
            "content_hash": card.dataset.content_hash,
            "inputs": card.dataset.inputs,
            "documents": [x.__dict__ for x in card.dataset.documents if x.used],
            "held_out": list(card.dataset.held_out),
        },
        "evaluation": {"content_hash": card.evaluated, "summary": card.summary},
        "parity": card.parity,
    }


def _taken(part: Part, weights: Weights) -> list[Path]:
    if part == "gguf":
        paths = [weights.gguf / f"{kind}.gguf" for kind in weights.types]
        return [p for p in paths if p.is_file()]
    if part == "lora":
        # As much again for its types, which `write_gguf` asks for by itself.
        return [p for p in (*weights.start.glob("*.safetensors"), weights.gguf / LORA_FILE) if p.is_file()]
    return [p for p in (weights.merged if part == "merged" else weights.adapter).iterdir() if p.is_file()]


def _adapter(folder: Path, weights: Weights) -> list[ModelFile]:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(weights.adapter / name, folder / name)
    if weights.base_repo:
        # In the store the base is known by its hash; outside by where it can be fetched, at exactly that commit.
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config |= {"base_model_name_or_path": weights.base_repo, "revision": weights.base_revision}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for pattern in _SIDE:
        for path in sorted(weights.merged.glob(pattern)):
            shutil.copyfile(path, folder / path.name)
    return [_file(folder / "adapter_model.safetensors", "LoRA matrices A and B", weights)]


def _merged(folder: Path, weights: Weights) -> list[ModelFile]:
    for path in sorted(weights.merged.iterdir()):
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    return [_file(p, "merged weights, bfloat16", weights) for p in sorted(folder.glob("*.safetensors"))]


def _gguf(folder: Path, weights: Weights, card: ModelCard) -> tuple[list[ModelFile], str]:
    run = card.origin.run
    files: list[ModelFile] = []
    for kind in weights.types:
        name = f"{run}-{kind.upper()}.gguf"
        shutil.copyfile(weights.gguf / f"{kind}.gguf", folder / name)
        files.append(_file(folder / name, f"whole model, {kind.upper()}", weights, known=f"{kind}.gguf"))
    return files, _modelfiles(folder, weights, card, [f"{run}-{kind.upper()}.gguf" for kind in weights.types])


def _lora(folder: Path, weights: Weights, card: ModelCard) -> tuple[list[ModelFile], str]:
    if not (weights.gguf / LORA_FILE).is_file():
        raise FoundryError(
            "this run has no GGUF adapter: llama.cpp's layout of its architecture is not known here",
            where=str(weights.gguf),
            mend="take the merged model: --only gguf",
        )
    bases = {kind: f"base-{kind.upper()}.gguf" for kind in weights.types}
    write_gguf(weights.start, folder, types=weights.types, name=card.origin.base_title, threads=2)
    files = []
    for kind, name in bases.items():
        (folder / f"{kind}.gguf").rename(folder / name)
        # Its own hash: the store's file of that name is another one.
        files.append(
            ModelFile(name, (folder / name).stat().st_size, file_hash(folder / name), f"the base, {kind.upper()}")
        )
    adapter = f"{card.origin.run}-lora-F32.gguf"
    shutil.copyfile(weights.gguf / LORA_FILE, folder / adapter)
    files.append(_file(folder / adapter, "the LoRA alone, in 32 bits", weights, known=LORA_FILE))
    return files, _modelfiles(folder, weights, card, list(bases.values()), adapter)


def _modelfiles(
    folder: Path, weights: Weights, card: ModelCard, names: Sequence[str], adapter: str | None = None
) -> str:
    """Write a Modelfile for each GGUF; why there is none, or an empty string."""
    try:
        shape, ends = asked(weights.merged, folder / names[0])
    except FoundryError as error:
        return str(error)
    for place, (kind, file) in enumerate(zip(weights.types, names, strict=True)):
        text = modelfile(
            ModelfileData(
                file=file,
                shape=shape,
                stops=ends,
                sampling=weights.sampling,
                license=card.origin.license,
                notes=_notes(card, shape),
                adapter=adapter,
            )
        )
        (folder / ("Modelfile" if place == 0 else f"Modelfile.{kind.upper()}")).write_text(text, encoding="utf-8")
    return ""


def _notes(card: ModelCard, shape: ChatShape) -> tuple[str, ...]:
    o = card.origin
    notes = [
        f"{o.run}: {o.character}, {o.method} on {o.dataset}",
        f"dataset {o.dataset_hash}",
        f"adapter {o.adapter_hash}",
        f"base {o.base_title} ({o.base_version})" + (f", a stand-in for {o.base}" if o.stand_in else ""),
        "template and stops are read off the tokenizer; sampling is that of the evaluation",
    ]
    if shape.trims:
        notes.append("the model's own template strips blanks around a message; Go templates cannot")
    if shape.system is None:
        notes.append("the model's template takes no system message: it is left out")
    return tuple(notes)


def asked(model: Path, gguf: Path) -> tuple[ChatShape, tuple[str, ...]]:
    """How the model of a folder wants to be asked by a server that puts the beginning of a text there by itself, if the
    GGUF tells it so: (form of a conversation, end tokens as text).

    Raises FoundryError for a template of another form, and for a GGUF under which a rendered conversation would not be
    the token ids that the tokenizer gives.
    """
    from transformers import AutoTokenizer

    from foundry_pipeline.models.vocabulary import Vocabulary

    with quiet_transformers(), Vocabulary(gguf) as vocabulary:
        tokenizer: Any = AutoTokenizer.from_pretrained(model, local_files_only=True)
        shape = chat_shape(tokenizer)
        said = vocabulary.begins()
        if said is not None:
            try:
                shape = shape.without_beginning(said)
            except ValueError as error:
                raise FoundryError(
                    f"servers begin every text with {said!r}, as the GGUF tells them, and the chat template does not: "
                    f"{error}",
                    where=gguf.name,
                    mend="serve it with a program that renders the template itself, such as llama.cpp's",
                ) from error
    return shape, stops(_ends(model, tokenizer))


def _ends(model: Path, tokenizer: Any) -> Sequence[str]:
    """The tokenizer's end token, then whatever else ends an answer by the generation configuration."""
    return [tokenizer.eos_token, *tokenizer.convert_ids_to_tokens(declared_ends(model))]


def _file(path: Path, what: str, weights: Weights, known: str = "") -> ModelFile:
    size = path.stat().st_size
    sha = weights.hashes.get(known or path.name) or file_hash(path)
    return ModelFile(path.name, size, sha, what)


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False, default=str) + "\n"
