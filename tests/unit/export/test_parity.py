"""Export parity on a tiny model: what is whole passes, and each way of damaging an export fails its own check."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import write_adapter

from foundry_pipeline.declarations.parity import Parity
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.deltas import compare_weights, summary
from foundry_pipeline.export.merge import merge
from foundry_pipeline.export.parity import measure
from foundry_pipeline.export.parity_verdict import DELTA_CHECK, better_mode, checks, judge, passed
from foundry_pipeline.export.served import Asked, ServedGguf, ServedWeights, Span
from foundry_pipeline.models.hf_backend import TransformersBackend
from foundry_pipeline.models.llama_backend import LlamaBackend
from foundry_pipeline.models.requests import ChatRequest, ModelRef

TYPES = ("f16", "q8_0", "q5_k_m", "q4_k_m")
QUESTIONS = [["a", "What is a faction?"], ["b", "Of 12½ states, how many?"], ["c", "Is <|im_end|> a word, sir?"]]
TEXTS = ["The lamp was lit at dusk, and all was still.", "A gale.", "I have kept this light eleven winters " * 4]
# Random weights agree less well than trained ones when they are rounded; what is asked here is only that bounds are read.
BOUNDS = Parity.model_validate({"tokens": 48, "bounds": {"q4_k_m": {"max_kl": 1.0, "min_top1": 0.2}}})


def weights(folder: Path, adapter: Path | None = None) -> ModelRef:
    lora = None if adapter is None else str(adapter)
    return ModelRef("transformers", str(folder), "w", lora, lora and "a", "weights")


def spec(base: Path, adapter: Path, merged: Path, gguf: Path, kinds: tuple[str, ...] = TYPES) -> dict[str, Any]:
    models = {"base": weights(base), "adapter": weights(base, adapter), "merged": weights(merged)}
    models |= {k: ModelRef("llama_cpp", str(gguf / f"{k}.gguf"), k, None, None, k) for k in kinds}
    return {
        "models": {mode: ref.__dict__ for mode, ref in models.items()},
        "folders": {"start": str(base), "adapter": str(adapter), "merged": str(merged)},
        "requests": QUESTIONS,
        "texts": TEXTS,
        "texts_from": "a test",
        "tokens": 48,
        "each": 16,
        "rows": 16,
        "reference": "float32",
        "precision": "bfloat16",
        "threads": 2,
        "at_once": 1,
    }


def verdict(measured: dict[str, Any], declared: Parity = BOUNDS) -> dict[str, dict[str, Any]]:
    return {r["name"]: r for r in judge(measured, declared)}


def blocking(found: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, r in found.items() if not r["passed"] and r["severity"] == "error"}


@pytest.fixture(scope="module")
def whole(tiny: Path, tiny_adapter: Path, tiny_exports: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    content, rows, _ = measure(spec(tiny, tiny_adapter, tiny_exports / "merged", tiny_exports / "gguf"), print)
    return content, rows


def test_a_whole_export_passes_and_says_how_near_it_is(whole: tuple[dict[str, Any], Any]) -> None:
    content, _ = whole
    found = verdict(content)
    assert blocking(found) == set()
    assert [r["name"] for r in found.values()] == [name for name, _, _ in checks(BOUNDS)]
    kl = {mode: d["mean_kl"] for mode, d in content["distance"].items()}
    assert list(kl) == ["adapter", "base", "merged", *TYPES]
    # The adapter has moved the model further than any way of serving it does.
    assert kl["base"] > kl["q8_0"]
    assert 0 <= kl["adapter"] < kl["q8_0"] < kl["q5_k_m"] < kl["q4_k_m"]
    assert content["text"]["tokens"] == 48
    assert content["ends"]["reference"] == [0, 2, 4]
    assert content["ends"]["modes"]["q4_k_m"]["forced"] == {"0": "stop", "2": "stop", "4": "stop"}
    assert content["merge"] == {
        "tensors": 14,
        "worst_steps": 0,
        "differing": 0.0,
        "changed_elsewhere": [],
        "misplaced": [],
    }
    json.dumps(content, allow_nan=False)


def test_files_measured_beside_the_weights_give_the_same(
    whole: tuple[dict[str, Any], Any], tiny: Path, tiny_adapter: Path, tiny_exports: Path, tmp_path: Path
) -> None:
    told = spec(tiny, tiny_adapter, tiny_exports / "merged", tiny_exports / "gguf") | {"at_once": 2}
    content, rows, seconds = measure(told, print)
    assert (content, rows) == whole
    assert set(TYPES) < set(seconds)
    told["models"]["q8_0"] = told["models"]["q8_0"] | {"path": str(tiny_exports / "gguf" / "gone.gguf")}
    with pytest.raises(FoundryError, match="model file not found"):
        measure(told, print)
    (damaged := tmp_path / "damaged.gguf").write_bytes(b"GGUF and nothing else")
    told["models"]["q8_0"]["path"] = str(damaged)
    with pytest.raises(FoundryError):
        measure(told, print)


def test_bounds_are_those_of_the_declaration(whole: tuple[dict[str, Any], Any]) -> None:
    strict = Parity.model_validate({"bounds": {"q5_k_m": {"max_kl": 1e-9, "min_top1": 0.0}}})
    found = verdict(whole[0], strict)
    assert "agreement_q5_k_m" in blocking(found)
    assert "1e-09" in found["agreement_q5_k_m"]["bound"]
    top = Parity.model_validate({"bounds": {"q4_k_m": {"max_kl": 50.0, "min_top1": 1.0}}})
    assert "agreement_q4_k_m" in blocking(verdict(whole[0], top))


def test_a_mode_that_was_not_measured_does_not_pass(whole: tuple[dict[str, Any], Any]) -> None:
    content = whole[0] | {"distance": {k: v for k, v in whole[0]["distance"].items() if k != "q8_0"}}
    assert blocking(verdict(content)) == {"agreement_q8_0"}
    broken = whole[0] | {"distance": whole[0]["distance"] | {"merged": dict.fromkeys(whole[0]["distance"]["merged"])}}
    assert blocking(verdict(broken)) == {"agreement_merged"}
    assert not passed(judge(broken, BOUNDS))


def test_every_type_of_quantization_has_its_step_beside_the_delta(whole: tuple[dict[str, Any], Any]) -> None:
    content, rows = whole
    assert {r["mode"] for r in rows} == {"merged", *TYPES}
    assert len(rows) == 14 * 5
    steps = [content["deltas"][mode]["ratio"] for mode in ("f16", "q8_0", "q5_k_m", "q4_k_m")]
    assert steps == sorted(steps, reverse=True)
    # Noise of quantizing knows nothing of the delta, so nearly all of it is kept along its direction.
    assert all(0.8 < content["deltas"][mode]["kept"] < 1.2 for mode in content["deltas"])
    q = next(r for r in rows if r["tensor"].endswith("q_proj") and r["mode"] == "q4_k_m")
    assert q["stored_as"] == "Q4_K"


def _scaled(held: dict[str, torch.Tensor]) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    held[name] = (held[name].float() * 1.02).to(torch.bfloat16)


def _untouched(held: dict[str, torch.Tensor]) -> None:
    held["model.norm.weight"] = held["model.norm.weight"] * 1.5


@pytest.mark.parametrize(("damage", "told"), [(_scaled, "at most [2-9] steps"), (_untouched, "model.norm.weight")])
def test_merged_weights_that_are_not_the_sum_are_told(
    tiny: Path,
    tiny_adapter: Path,
    tiny_exports: Path,
    tmp_path: Path,
    whole: tuple[dict[str, Any], Any],
    damage: Callable[[dict[str, torch.Tensor]], None],
    told: str,
) -> None:
    held = load_file(tiny_exports / "merged" / "model.safetensors")
    damage(held)
    save_file(held, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _, merge_facts = compare_weights(tiny, tiny_adapter, tmp_path, {}, rows=16)
    found = verdict(whole[0] | {"merge": merge_facts})
    assert blocking(found) == {"merged_equals_adapter"}
    assert re.search(told, found["merged_equals_adapter"]["observed"])


def test_gguf_files_of_another_model_are_told(
    tiny: Path, tiny_adapter: Path, tiny_exports: Path, tmp_path: Path
) -> None:
    held = load_file(tiny_exports / "merged" / "model.safetensors")
    name = "model.layers.0.self_attn.k_proj.weight"
    held[name] = held[name].flip(0)
    save_file(held, tmp_path / "model.safetensors", metadata={"format": "pt"})
    files = {"f16": tiny_exports / "gguf" / "f16.gguf"}
    _, merge_facts = compare_weights(tiny, tiny_adapter, tmp_path, files, rows=16)
    assert merge_facts["misplaced"] == ["model.layers.0.self_attn.k_proj (f16)"]


def test_gguf_files_of_the_untuned_base_are_told(
    tiny: Path, tiny_adapter: Path, tiny_exports: Path, tmp_path: Path, whole: tuple[dict[str, Any], Any]
) -> None:
    """Their rows look like the merged ones, and their predictions may be near enough; what training added is not there."""
    files = {"f16": "F16", "q8_0": "Q8_0", "q4_k_m": "Q4_0"}
    for mode, stored_as in files.items():
        write_adapted(tiny, tmp_path / f"{mode}.gguf", stored_as)
    paths = {m: tmp_path / f"{m}.gguf" for m in files}
    rows, facts = compare_weights(tiny, tiny_adapter, tiny_exports / "merged", paths, rows=16)
    found = verdict(whole[0] | {"merge": facts, "deltas": summary(rows)})
    assert "gguf_holds_merged" in blocking(found)
    assert "F16 holds 0% of what training added, merged " in found["gguf_holds_merged"]["observed"]


def test_a_delta_below_the_step_is_told_and_a_better_mode_named(
    tiny: Path, tmp_path: Path, whole: tuple[dict[str, Any], Any]
) -> None:
    faint, merged = write_adapter(tmp_path / "faint", tiny, std=2e-5), tmp_path / "merged"
    merged.mkdir()
    merge(tiny, faint, merged)
    files = {"f16": "F16", "q8_0": "Q8_0", "q4_k_m": "Q4_0"}
    for mode, stored_as in files.items():
        write_adapted(merged, tmp_path / f"{mode}.gguf", stored_as)
    rows, facts = compare_weights(tiny, faint, merged, {m: tmp_path / f"{m}.gguf" for m in files}, rows=16)
    deltas = summary(rows)
    assert facts == whole[0]["merge"]
    assert deltas["q4_k_m"]["below"] == deltas["q8_0"]["below"] == 14
    assert deltas["q4_k_m"]["ratio"] < deltas["q8_0"]["ratio"] < 1 < deltas["f16"]["ratio"]
    found = verdict(whole[0] | {"merge": facts, "deltas": deltas})
    told = found[DELTA_CHECK]
    assert not told["passed"]
    assert told["severity"] == "warn"
    assert "Q4_K_M: delta 0.0" in told["observed"]
    assert told["observed"].endswith("nearest to what was trained, and smallest: F16")
    assert blocking(found) == set()
    assert better_mode({mode: told | {"ratio": 0.5} for mode, told in deltas.items()}) == "adapter"


def write_adapted(folder: Path, path: Path, stored_as: str) -> None:
    """A GGUF of a folder's adapted layers alone, rows in the folder's order."""
    from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, get_tensor_name_map
    from gguf.quants import quantize

    kind = GGMLQuantizationType[stored_as]
    writer, names = GGUFWriter(path, "llama"), get_tensor_name_map(MODEL_ARCH.LLAMA, 2)
    writer.add_block_count(2)
    for name, tensor in load_file(folder / "model.safetensors").items():
        if "_proj" in name:
            layer = names.get_name(name.removesuffix(".weight"))
            writer.add_tensor(f"{layer}.weight", quantize(tensor.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_what_is_measured_is_what_serves(tiny: Path, tiny_adapter: Path, tiny_exports: Path) -> None:
    request = ChatRequest("r", (("user", "Of 12½ states?"),), max_tokens=3, temperature=0.0, top_k=0, top_p=1.0, seed=0)
    plain = TransformersBackend(weights(tiny, tiny_adapter), threads=2, precision="float32")
    served = ServedWeights(weights(tiny, tiny_adapter), threads=2, precision="float32")
    assert Asked(tiny).prompt_ids(request) == plain.prompt_ids(request) == served.prompt_ids(request)
    assert Asked(tiny).ends() == served.ends() == (2, [0, 2, 4])
    # A mark that stands in a text is words there, not the end of a turn.
    assert 2 not in Asked(tiny).text_ids("Is <|im_end|> a word?")
    # Weights put into 16 bits beneath the adapter give the numbers of those that were read so.
    lowered, read = (
        ServedWeights(weights(tiny, tiny_adapter), threads=2, precision=p) for p in ("float32", "bfloat16")
    )
    lowered.lower("bfloat16")
    span = Span(tuple(lowered.prompt_ids(request)), (5, 6, 7))
    assert torch.equal(lowered.logits([span]), read.logits([span]))
    ref = ModelRef("llama_cpp", str(tiny_exports / "gguf" / "q8_0.gguf"), "g", None, None, "gguf")
    gguf, llama = ServedGguf(ref, threads=2), LlamaBackend(ref, threads=2)
    assert gguf.prompt_ids(request) == llama.prompt_ids(request)
    assert gguf.ends() == (2, [0, 2, 4])
    for mode, backend in ((served, plain), (gguf, llama)):
        # The likeliest token after the prompt is the first that serving writes.
        prompt = tuple(mode.prompt_ids(request))
        first = mode.logits([Span(prompt, (5,))]).argmax(dim=1).tolist()
        (reply,) = backend.answer([request], ["h"])
        (same,) = mode.answer([request], ["h"])
        assert same.text == reply.text
        assert Asked(tiny).text_ids(reply.text)[:1] == first or reply.text == ""
        # Forcing leaves nothing behind.
        assert [r.completion_tokens for r in mode.forced(request, [2, 0])] == [0, 0]
        assert mode.answer([request], ["h"])[0].text == reply.text


def test_logits_of_a_long_text_come_in_order(tiny: Path, tiny_exports: Path) -> None:
    """More tokens than llama.cpp takes in one pass, against the same numbers in transformers."""
    ids = tuple((7 * i) % 40_000 + 300 for i in range(700))
    span = Span(ids[:100], ids[100:])
    ref = ModelRef("llama_cpp", str(tiny_exports / "gguf" / "f16.gguf"), "g", None, None, "gguf")
    gguf = ServedGguf(ref, threads=2).logits([Span((9, 8), (7,)), span])
    assert gguf.shape == (601, 49152)
    alone = ServedGguf(ref, threads=2).logits([span])
    assert torch.allclose(gguf[1:], alone, atol=2e-2)
    assert (gguf[1:].argmax(dim=1) == alone.argmax(dim=1)).float().mean() > 0.97


@pytest.fixture
def packed(tiny: Path, tmp_path: Path) -> Path:
    base = tmp_path / "packed"
    shutil.copytree(tiny, base)
    return base


def test_a_base_packed_into_4_bits_is_refused_whatever_its_configuration_says(
    packed: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    from foundry_pipeline.errors import FoundryError

    held = load_file(packed / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    held[name] = torch.zeros(held[name].numel() // 2, 1, dtype=torch.uint8)
    save_file(held, packed / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "out").mkdir()
    with pytest.raises(FoundryError, match=r"quantized \(.*q_proj\.weight is U8\).*full-precision weights only"):
        merge(packed, tiny_adapter, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
