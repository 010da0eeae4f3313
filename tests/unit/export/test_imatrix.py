"""The importance matrix: what is measured, that the quantizer heeds it column by column, and when there is one at all."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from foundry_pipeline.chain.model_stages import adapter_stages
from foundry_pipeline.declarations.load import load
from foundry_pipeline.declarations.parity import Imatrix
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.gguf import quantize
from foundry_pipeline.export.imatrix import Importance, measure

COLUMNS = slice(5, None, 32)  # that matter: one of each block of 32, of the 512 inputs of a feed-forward's last layer
TENSOR = "blk.0.ffn_down.weight"


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    topics = ("union", "faction", "senate", "treaty")
    rows = [
        {"pair_id": str(i), "prompt_id": str(i), "upsample": 1, "prompt": f"What of the {t}?", "rejected": "No.",
         "chosen": f"The {t} hath ever been the object of my solicitude."}
        for i, t in enumerate(topics)
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    pl.DataFrame(rows).write_parquet(path)
    return path


@pytest.fixture(scope="module")
def found(tiny: Path, parquet: Path) -> Importance:
    return measure(tiny, parquet, tokens=100)


def test_it_is_the_mean_square_of_every_column_that_a_layer_reads(tiny: Path, parquet: Path, found: Importance) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from foundry_pipeline.training.tokens import load_examples

    kinds = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    assert set(found.means) == {f"blk.{n}.{kind}.weight" for n in (0, 1) for kind in kinds}
    assert found.tokens == 100
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    network: Any = AutoModelForCausalLM.from_pretrained(tiny, dtype="auto")
    left, total = 100, torch.zeros(network.config.hidden_size, dtype=torch.float64)
    for example in load_examples(parquet, tokenizer, "sft", 2048)[0]:
        ids = torch.tensor([list(example.prompt + example.chosen)[:left]])
        left -= ids.shape[1]
        if not ids.numel():
            break
        layer = network.model.layers[0]
        with torch.inference_mode():
            total += layer.input_layernorm(network.model.embed_tokens(ids))[0].double().square().sum(0)
    np.testing.assert_allclose(found.means["blk.0.attn_q.weight"], (total / 100).numpy(), rtol=1e-5)
    for one, other in (("attn_q", "attn_v"), ("ffn_gate", "ffn_up")):
        np.testing.assert_array_equal(found.means[f"blk.1.{one}.weight"], found.means[f"blk.1.{other}.weight"])
    assert found.facts() == replace(found).facts()


def weights_of(path: Path) -> np.ndarray:
    from gguf import GGUFReader
    from gguf.quants import dequantize

    tensor = next(t for t in GGUFReader(path).tensors if t.name == TENSOR)
    values: np.ndarray = dequantize(tensor.data, tensor.tensor_type)
    return values


def test_the_quantizer_rounds_more_exactly_what_matters(tiny_gguf: Path, found: Importance, tmp_path: Path) -> None:
    skewed = replace(found, means={name: np.full_like(values, 1e-4) for name, values in found.means.items()})
    skewed.means[TENSOR][COLUMNS] = 1.0
    exact = weights_of(tiny_gguf / "f16.gguf")
    for kind in ("q8_0", "q5_k_m", "q4_k_m"):
        files = {name: tmp_path / f"{name}-{kind}.gguf" for name in ("none", "skewed", "again")}
        for name, file in files.items():
            quantize(tiny_gguf / "f16.gguf", file, kind, 2, None if name == "none" else skewed)
        content = {name: file.read_bytes() for name, file in files.items()}
        assert content["skewed"] == content["again"]
        assert (content["none"] == content["skewed"]) == (kind == "q8_0")
        if kind == "q8_0":
            continue
        error = {name: np.square(weights_of(files[name]) - exact) for name in ("none", "skewed")}
        # of the columns that matter it takes away more than half the error, at the cost of the others
        assert error["skewed"][:, COLUMNS].mean() < 0.5 * error["none"][:, COLUMNS].mean()
        assert error["skewed"].mean() > error["none"].mean()


def test_a_model_whose_activations_are_no_numbers_is_refused(tiny: Path, parquet: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(tiny, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.0.self_attn.o_proj.weight"][:] = float("nan")
    save_file(weights, str(broken / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(FoundryError, match=r"inputs of blk\.0\.ffn_\w+\.weight are no finite numbers"):
        measure(broken, parquet, tokens=100)


def test_only_a_profile_or_a_run_that_asks_for_it_gets_one() -> None:
    d = load(Path(__file__).resolve().parents[3], "laptop")
    run = d.runs["madison_r2"]

    def stage(**changes: Any) -> Any:
        told = replace(d, profile=d.profile.model_copy(update=changes)) if changes else d
        return next(s for s in adapter_stages(told, run) if s.kind == "gguf")

    plain, weighed = stage(), stage(imatrix=Imatrix(tokens=4096))
    assert "imatrix" not in plain.declaration
    assert weighed.declaration == plain.declaration | {"imatrix": {"tokens": 4096}}
    assert set(weighed.code) - set(plain.code) == {"foundry_pipeline.export.imatrix"}
    run = run.model_copy(update={"imatrix": Imatrix(tokens=512)})
    assert stage().declaration["imatrix"] == {"tokens": 512}
    assert stage(imatrix=Imatrix(tokens=4096)).declaration["imatrix"] == {"tokens": 512}
