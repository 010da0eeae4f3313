"""GGUF files read quickly: the same outcome as by the package's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from foundry_pipeline.models.gguf_quick import quick_gguf, quick_reader


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with every kind of field, texts without a letter, and tensors of several types."""
    path = tmp_path_factory.mktemp("gguf") / "all.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.name", "Wächter — 守")
    writer.add_string("general.nothing", "")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    writer.add_uint64("general.large", 2**63 + 1)
    writer.add_array("tokenizer.ggml.tokens", ["a", "", "ß", "<|im_end|>"] * 700)
    writer.add_array("tokenizer.ggml.scores", [0.5, -1.25, 3.0])
    writer.add_array("tokenizer.ggml.token_type", [1, 2, 3])
    rng = np.random.default_rng(1)
    writer.add_tensor("token_embd.weight", rng.standard_normal((8, 64), dtype=np.float32))
    writer.add_tensor("output_norm.weight", rng.standard_normal(64).astype(np.float16))
    packed = gguf.quantize(rng.standard_normal((8, 64), dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.attn_q.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _same(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def test_every_field_and_tensor_is_the_package_s_own(file: Path) -> None:
    own, quick = gguf.GGUFReader(file), quick_reader()(file)
    assert list(own.fields) == list(quick.fields)
    for name, field in own.fields.items():
        other = quick.fields[name]
        assert (field.offset, field.data, field.types) == (other.offset, other.data, other.types)
        assert len(field.parts) == len(other.parts)
        assert all(_same(a, b) for a, b in zip(field.parts, other.parts, strict=True)), name
        assert field.contents() == other.contents()
    assert [t.name for t in own.tensors] == [t.name for t in quick.tensors]
    for one, two in zip(own.tensors, quick.tensors, strict=True):
        assert (one.tensor_type, one.n_bytes, one.data_offset) == (two.tensor_type, two.n_bytes, two.data_offset)
        assert _same(one.data, two.data)
        assert _same(gguf.dequantize(one.data, one.tensor_type), gguf.dequantize(two.data, two.tensor_type))


@pytest.mark.parametrize("kept", [3, 30, 2000, 0.5, 0.999])
def test_a_file_that_is_cut_is_refused(file: Path, kept: float, tmp_path: Path) -> None:
    whole = file.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    with pytest.raises((ValueError, IndexError)):
        quick_reader()(cut)


def test_the_package_is_itself_again_afterwards(file: Path) -> None:
    reader, names = gguf.GGUFReader, gguf.get_tensor_name_map
    with quick_gguf():
        assert gguf.GGUFReader is quick_reader()
        found = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
        assert found is gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
        assert found is not gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 3)
        assert found.get_name("model.layers.1.self_attn.q_proj") == "blk.1.attn_q"
    with pytest.raises(RuntimeError), quick_gguf():
        raise RuntimeError
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == (reader, names)
