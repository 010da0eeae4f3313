"""Folders to take away: whole, the same to the byte, and a card that says what it must and obeys nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from go_templates import modelfile_parts
from tiny_model import origin

from foundry_pipeline.datasets.card import CardData, SourceDocument
from foundry_pipeline.declarations.common import Sampling
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.lora_gguf import write_lora_gguf
from foundry_pipeline.export.model_card import ModelCard, ModelFile, front_matter, render_model_card
from foundry_pipeline.export.model_folder import PARTS, Weights, write_model
from foundry_pipeline.lineage.hashing import file_hash, folder_files
from foundry_pipeline.models.llama_backend import LlamaBackend
from foundry_pipeline.models.requests import ChatRequest, ModelRef
from tests.servers.running import KEY, ROOT, running

HOSTILE = (
    "<script>alert(1)</script> | **bold** [x](javascript:y) `tick` \u202eback \x1b[31m\n# heading\n---\nlicense: mit"
)


def summary() -> dict[str, Any]:
    def mode(mean: float, voice: float) -> dict[str, Any]:
        overall = {"mean": mean, "low": mean - 0.25, "high": mean + 0.25, "n": 36}
        return {
            "overall": overall, "critical_failures": 2, "unscored": 1, "nats_per_token": 3.63,
            "components": {"voice": {"mean": voice, "low": 0, "high": 10, "n": 36}},
        }  # fmt: skip

    return {
        "judge": {"name": "rubric-local", "version": "ca04839d"},
        "prompts": 36,
        "modes": {"adapter": mode(6.234, 9.31), "base": mode(3.01, 1.1)},
        "paired": {"adapter": {"difference": -3.2, "low": -3.6, "high": -2.9, "verdict": "worse"}},
    }


@pytest.fixture
def card() -> ModelCard:
    document = SourceDocument(
        "log_1", "log", HOSTILE, "The Keeper", "1851-03-01", "CC0-1.0", "", "a" * 64, "primary", False, 3
    )
    data = CardData(
        name="keeper_dataset_v1", description=HOSTILE, character="A Keeper", method="preference", order="shuffle",
        license=None, content_hash="d" * 64, profile="tiny", size_factor=0.5,
        shape={"rows": 12, "shown": 20, "categories": {}, "origins": {}}, facts={}, documents=[document],
        held_out=("The sealed log",), models={"base": {"what": HOSTILE, "side": "rejected", "license": "Apache-2.0"}},
        verdict={"passed": True, "results": []}, sieve=None, filters={}, unserved={"private_voice": "no letters"},
        inputs={},
    )  # fmt: skip
    return ModelCard(
        part="gguf", origin=origin(), description=HOSTILE, parameters=1_000_000, repo="", declared_size_factor=0.25,
        hashes={"adapter": "a" * 64, "merged": "e" * 64, "gguf": "f" * 64}, files=(ModelFile("x.gguf", 1_500_000, "1" * 64, HOSTILE),),
        training={"lora_rank": 8, "lora_alpha": 16, "learning_rate": 2e-4}, facts={"steps": 85, "rows_per_epoch": 18, "validation_rows": 2},
        dataset=data, summary=summary(), evaluated="9" * 64, confidence=0.95, parity=None,
        mode_titles={"base": "base, untuned"},
    )  # fmt: skip


@pytest.fixture
def weights(tiny: Path, tiny_adapter: Path, tiny_gguf: Path, tmp_path: Path) -> Weights:
    write_lora_gguf(tiny_adapter, tiny, tmp_path / "lora.gguf", origin())
    gguf = tmp_path / "payload"
    gguf.mkdir()
    for path in (*tiny_gguf.iterdir(), tmp_path / "lora.gguf"):
        os.link(path, gguf / path.name)
    sampling = Sampling(temperature=1.0, top_k=64, top_p=0.95, max_tokens=1024)
    return Weights(tiny_adapter, tiny, gguf, tiny, ("q4_k_m", "f16"), sampling, "", "", {})


def written(part: Any, weights: Weights, card: ModelCard, target: Path) -> Path:
    folder, missing = write_model(part, weights, dataclasses.replace(card, part=part), target)
    assert missing == ""
    return folder


def test_the_gguf_folder_serves_with_ollama_and_llama_cpp(weights: Weights, card: ModelCard, tmp_path: Path) -> None:
    folder = written("gguf", weights, card, tmp_path / "out")
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "keeper_first-Q4_K_M.gguf", "keeper_first-F16.gguf", "Modelfile",
        "Modelfile.F16", "README.md", "provenance.json",
    }  # fmt: skip
    for name, file in (("Modelfile", "keeper_first-Q4_K_M.gguf"), ("Modelfile.F16", "keeper_first-F16.gguf")):
        parts = modelfile_parts((folder / name).read_text())
        assert parts["FROM"] == [f"./{file}"]
        assert (folder / file).is_file()
    told = json.loads((folder / "provenance.json").read_text())
    for name, said in told["files"].items():
        assert said["sha256"] == file_hash(folder / name)
        assert said["bytes"] == (folder / name).stat().st_size
    assert told["origin"] == origin().to_json()


def test_the_lora_folder_has_a_base_to_lay_it_over(weights: Weights, card: ModelCard, tmp_path: Path) -> None:
    folder = written("lora", dataclasses.replace(weights, types=("q4_k_m",)), card, tmp_path / "out")
    names = {"base-Q4_K_M.gguf", "keeper_first-lora-F32.gguf", "Modelfile", "README.md", "provenance.json"}
    assert {p.name for p in folder.iterdir()} == names
    parts = modelfile_parts((folder / "Modelfile").read_text())
    assert (parts["FROM"], parts["ADAPTER"]) == (["./base-Q4_K_M.gguf"], ["./keeper_first-lora-F32.gguf"])
    served = ModelRef(
        "llama_cpp", str(folder / "base-Q4_K_M.gguf"), "x", str(folder / "keeper_first-lora-F32.gguf"), "y", ""
    )
    backend = LlamaBackend(served, threads=2)
    try:
        [reply] = backend.answer([ChatRequest("one", (("user", "Well?"),), 4, 0.0, 0, 1.0, 0)], ["hash"])
    finally:
        backend.close()
    assert reply.completion_tokens > 0
    told = json.loads((folder / "provenance.json").read_text())["files"]
    assert {name: said["sha256"] for name, said in told.items()} == {n: file_hash(folder / n) for n in told}
    assert len(told) == 2
    (weights.gguf / "lora.gguf").unlink()
    with pytest.raises(FoundryError, match="no GGUF adapter"):
        write_model("lora", weights, dataclasses.replace(card, part="lora"), tmp_path / "none")


def test_a_quantized_file_says_where_it_comes_from(tiny_gguf: Path) -> None:
    from gguf import GGUFReader

    said = {name: f.contents() for name, f in GGUFReader(tiny_gguf / "q4_k_m.gguf").fields.items()}
    for key, value in origin().keys().items():
        assert said[key] == value, key
    assert said["general.name"] == said["foundry.run"] == "keeper_first"
    assert said["general.license"] == "apache-2.0"
    assert (said["general.dataset.0.name"], said["general.dataset.0.version"]) == ("keeper_dataset_v1", "d" * 64)
    assert said["general.base_model.0.name"] == "Tiny-Instruct (stand-in)"
    assert (said["foundry.adapter_hash"], said["foundry.stand_in"]) == ("a" * 64, "yes")
    assert said["tokenizer.ggml.eos_token_id"] == 2
    assert "SmolLM" in said["tokenizer.chat_template"]


def test_adapter_and_merged_load_from_their_folders(weights: Weights, card: ModelCard, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = written("merged", weights, card, tmp_path / "merged")
    adapter = written("adapter", weights, card, tmp_path / "adapter")
    base: Any = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    ids = torch.tensor([[1, 520, 30]])
    with torch.inference_mode():
        before = base(ids).logits
        after = PeftModel.from_pretrained(base, str(adapter))(ids).logits
    assert not torch.equal(before, after)
    for folder in (merged, adapter):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        assert "SmolLM" in tokenizer.chat_template
    assert "base_model" not in yaml.safe_load((adapter / "README.md").read_text().split("---\n")[1])


def test_an_adapter_of_a_hub_model_names_it_at_its_commit(weights: Weights, card: ModelCard, tmp_path: Path) -> None:
    at_hub = dataclasses.replace(weights, base_repo="someone/model", base_revision="c" * 40)
    folder = written("adapter", at_hub, dataclasses.replace(card, repo="someone/model"), tmp_path / "out")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("someone/model", "c" * 40)
    assert config["r"] == 8
    front = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert (front["base_model"], front["base_model_relation"]) == (["someone/model"], "adapter")


@pytest.mark.parametrize("part", ["adapter", "merged", "gguf"])
def test_made_again_it_is_the_same_and_what_is_of_others_is_left(
    weights: Weights, card: ModelCard, tmp_path: Path, part: Any
) -> None:
    one, two = (written(part, weights, card, tmp_path / name) for name in ("one", "two"))
    assert folder_files(one) == folder_files(two)
    assert written(part, weights, card, one) == one
    of_others = tmp_path / "of_others"
    of_others.mkdir()
    (of_others / "thesis.txt").write_text("mine")
    with pytest.raises(FoundryError, match="not an export of a model"):
        write_model(part, weights, dataclasses.replace(card, part=part), of_others)
    assert [p.name for p in of_others.iterdir()] == ["thesis.txt"]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_no_room_writes_nothing(weights: Weights, card: ModelCard, full_disk: Path) -> None:
    with pytest.raises(FoundryError, match="will be written"):
        write_model("merged", weights, dataclasses.replace(card, part="merged"), full_disk / "out")
    assert list(full_disk.iterdir()) == []


def test_a_template_that_ollama_cannot_have_leaves_the_modelfile_out_and_says_so(
    weights: Weights, card: ModelCard, tmp_path: Path
) -> None:
    import shutil

    model = tmp_path / "numbered"
    shutil.copytree(weights.merged, model)
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ loop.index ~ m.content }}{% endfor %}")
    folder, missing = write_model("gguf", dataclasses.replace(weights, merged=model), card, tmp_path / "out")
    assert "cannot be told" in missing
    assert not (folder / "Modelfile").exists()
    assert "No Modelfile is here" in (folder / "README.md").read_text()


@pytest.mark.parametrize("part", PARTS)
def test_the_card_obeys_nothing_that_it_is_told(card: ModelCard, part: Any) -> None:
    hostile = dataclasses.replace(
        origin(character=HOSTILE, base_title=HOSTILE, base_version=HOSTILE, dataset=HOSTILE.replace("<", "("))
    )
    text = render_model_card(dataclasses.replace(card, part=part, origin=hostile))
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "apache-2.0"
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\n# heading" not in text
    assert [line for line in text.splitlines() if line.startswith("# ")] == [
        f"# keeper\\_first, {({'adapter': 'LoRA adapter', 'merged': 'merged weights', 'gguf': 'GGUF', 'lora': 'GGUF adapter'})[part]}"
    ]


def test_the_card_tells_data_scores_and_limits(card: ModelCard) -> None:
    text = " ".join(render_model_card(card).split())
    assert "**The base is a stand-in.** The run declares `big_base`" in text
    assert "d" * 64 in text and "a" * 64 in text  # noqa: PT018
    assert "| base, untuned | 3.01 | 2.76 – 3.26 | – | 2 | 1 | 3.630 |" in text
    minus = "\N{MINUS SIGN}"
    assert f"| adapter | 6.23 | 5.98 – 6.48 | {minus}3.20 ({minus}3.60 to {minus}2.90), worse | 2 | 1 | 3.630 |" in text
    assert "12 rows, 20 as an epoch shows them: 18 were trained on in an epoch, 2 held out for validation." in text
    assert "**rubric-local** (version `ca04839d`); 95% intervals" in text
    assert "Nothing of the category private\\_voice was in the data: no letters" in text
    assert "has not been checked" in text
    failed = {"passed": False, "results": [{"name": "same_prompts", "passed": False}]}
    assert "export parity failed**: same\\_prompts" in render_model_card(dataclasses.replace(card, parity=failed))
    unjudged = render_model_card(dataclasses.replace(card, summary=None))
    assert "This run has not been judged" in unjudged
    assert "rubric" not in unjudged
    own = dataclasses.replace(card, origin=origin(stand_in=False, license="Some Own Terms"), repo="someone/model")
    front = front_matter(own)
    assert (front["license"], front["license_name"]) == ("other", "Some Own Terms")
    assert "base is a stand-in" not in render_model_card(own)


def push(folder: Path, url: str, repo: str, *, key: str | None = KEY, **extra: str) -> subprocess.CompletedProcess[str]:
    """`push_folder` in a process of its own: huggingface_hub reads its environment once, when it is loaded."""
    code = (
        "import sys; from pathlib import Path; from foundry_pipeline.errors import FoundryError\n"
        "from foundry_pipeline.export.push import push_folder\n"
        "try: print(push_folder(Path(sys.argv[1]), sys.argv[2], private=True, message='keeper_first, adapter'))\n"
        "except FoundryError as error: sys.exit(f'refused: {error}')"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    set_here = {"HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder.parent / "hf")}
    environment = {**kept, **set_here, **({"HF_TOKEN": key} if key else {}), **extra}
    return subprocess.run(
        [sys.executable, "-c", code, str(folder), repo],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_what_is_pushed_arrives_whole_and_nothing_goes_without_leave(
    weights: Weights, card: ModelCard, tmp_path: Path
) -> None:
    folder = written("adapter", weights, card, tmp_path / "out" / "adapter")
    with running("hub", tmp_path / "hub", key=KEY, taken=["others/model"]) as server:
        assert server.log() == [], "an export alone asks nobody"
        done = push(folder, server.url, "someone/keeper")
        assert done.returncode == 0, done.stderr
        assert f"{server.url}/someone/keeper/commit/" in done.stdout
        assert folder_files(tmp_path / "hub/repositories/someone/keeper") == folder_files(folder)
        [made] = server.events("repository")
        assert made["told"]["visibility"] == "private"
        [commit] = server.events("commit")
        assert commit["message"] == "keeper_first, adapter"
        for refused, says in (
            (push(folder, server.url, "others/model"), "status 403"),
            (push(folder, server.url, "someone/keeper", key="wrong"), "status 401"),
            (push(folder, server.url, "no-owner"), "no repository of a hub"),
            (push(folder, server.url, "someone/keeper", HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE is set"),
        ):
            assert refused.returncode == 1
            assert says in refused.stderr, refused.stderr
            assert KEY not in refused.stderr
        assert len(server.events("commit")) == 1
    unreachable = push(folder, server.url, "someone/keeper")
    assert "cannot be reached" in unreachable.stderr, unreachable.stderr
