"""Planted pickles, code and configurations that ask for code: refused by name before a library sees them."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import script_environment
from foundry_pipeline.models.model_files import check_model_folder, check_named


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "base"
    made.mkdir()
    (made / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    (made / "tokenizer_config.json").write_text("{}")
    save_file({"a": np.zeros(4, np.float32)}, made / "model.safetensors")
    check_model_folder(made)
    return made


class Planted:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "adapter_model.bin", "training_args.bin", "a/optimizer.pt", "model.ckpt", "x.PKL", "w.npz"],
)
def test_a_pickle_is_refused_by_name(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(Planted(folder / "owned")))
    with pytest.raises(FoundryError, match=f"`{name}` is a pickle"):
        check_model_folder(folder)
    assert not (folder / "owned").exists()


def test_a_pickle_under_another_name_is_told_by_its_bytes(folder):
    (folder / "weights.dat").write_bytes(pickle.dumps([1]))
    with pytest.raises(FoundryError, match=r"`weights\.dat` is a pickle"):
        check_model_folder(folder)
    (folder / "weights.dat").unlink()
    with zipfile.ZipFile(folder / "archive", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps([1]))
    with pytest.raises(FoundryError, match="`archive` is a pickle, an archive"):
        check_model_folder(folder)
    (folder / "archive").unlink()
    (folder / "model.safetensors").write_bytes(pickle.dumps([1] * 40))
    with pytest.raises(FoundryError, match="no safetensors file"):
        check_model_folder(folder)


@pytest.mark.parametrize("name", ["modeling_evil.py", "custom_generate/generate.py", "lib.so", "setup.sh"])
def test_code_is_refused(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("raise SystemExit")
    with pytest.raises(FoundryError, match=f"`{name}` is code"):
        check_model_folder(folder)


@pytest.mark.parametrize(
    ("file", "content", "key"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "someone/repo--modeling.Evil"}}, "auto_map"),
        ("config.json", {"text_config": {"inner": [{"auto_map": {"AutoConfig": "x.Y"}}]}}, "auto_map"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tok.Evil", None]}}, "auto_map"),
        ("config.json", {"custom_pipelines": {"text": {"impl": "x.Y"}}}, "custom_pipelines"),
        (
            "adapter_config.json",
            {"auto_mapping": {"parent_library": "os", "base_model_class": "system"}},
            "auto_mapping",
        ),
        ("generation_config.json", {"trust_remote_code": True}, "trust_remote_code"),
    ],
)
def test_a_configuration_that_names_code_is_refused(folder, file, content, key):
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(FoundryError, match=rf"`{file}` has `{key}`"):
        check_model_folder(folder)


def test_what_says_no_to_code_is_taken(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"auto_mapping": None, "trust_remote_code": False}))
    check_model_folder(folder)


def test_links_and_depth_and_rubbish(folder, tmp_path):
    (tmp_path / "outside.json").write_text("{}")
    (folder / "extra.json").symlink_to(tmp_path / "outside.json")
    with pytest.raises(FoundryError, match="a link that leads out"):
        check_model_folder(folder)
    (folder / "extra.json").unlink()
    for content in ("[" * 100_000, '{"a":' * 70 + "1" + "}" * 70, "not json", b"\xff\xfe".decode("latin-1")):
        (folder / "extra.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(FoundryError, match=r"`extra\.json` is n"):
            check_model_folder(folder)


def test_a_script_refuses_what_its_spec_names_before_it_loads(folder, tmp_path):
    """The trainer as a script, on a folder with a planted pickle: told by name, exit code 1, and nothing was run."""
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Planted(tmp_path / "owned")))
    work = tmp_path / "work"
    work.mkdir()
    spec = work / "spec.json"
    spec.write_text(json.dumps({"work": str(work), "threads": 1, "base_dir": str(folder)}))
    done = subprocess.run(
        [sys.executable, "-m", "foundry_pipeline.training.train", str(spec)],
        env=script_environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "`adapter_model.bin` is a pickle" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((work / "error.json").read_text())["where"] == str(folder)
    assert not (tmp_path / "owned").exists()


def test_a_gguf_file_that_a_spec_names_is_looked_at(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60))
    with pytest.raises(FoundryError, match="more than there is room for"):
        check_named({"model": {"path": str(path)}, "jobs": []})
    check_named({"work": str(path), "text": "/nowhere", "more": ["/" + "x" * 5000, "/a\0b"]})


def test_a_model_with_a_planted_file_is_not_published(tmp_path, monkeypatch):
    """Through the engine: a stage that leaves a pickle fails, and the store stays as it was."""
    from foundry_pipeline.chain.engine import Chain
    from foundry_pipeline.chain.stage import Built, Stage
    from foundry_pipeline.lineage.store import Store
    from foundry_pipeline.settings import Settings

    def build(ctx):
        payload = ctx.work / "payload"
        payload.mkdir()
        (payload / "config.json").write_text("{}")
        (payload / "pytorch_model.bin").write_bytes(b"x")
        return Built(payload, {})

    stage = Stage("evil_base", "base_model", (), {}, (), build, "")
    settings = Settings(tmp_path, tmp_path / "store", "tiny")
    chain = Chain({"evil_base": stage}, Store(settings.store), settings)
    with pytest.raises(FoundryError, match=r"`pytorch_model\.bin` is a pickle"):
        chain.materialize("evil_base", run_script=lambda *_, **__: None, log=print)
    assert not list(settings.store.glob("artifacts/*"))
    assert not list(settings.store.glob("index/*"))


def test_what_the_chain_builds_is_taken(built):
    """Every model that the chain made passes."""
    seen = 0
    for payload in sorted(built.store.glob("artifacts/*/payload")):
        if any(payload.rglob("*.safetensors")) or any(payload.rglob("*.gguf")):
            check_model_folder(payload)
            seen += 1
    assert seen >= 4
