"""Texts read in packs: which come together, and that no vector shows its company."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.corpus.minilm import MiniLm, load_encoder, model_folder, packs, rows_alone

LENGTHS = st.lists(st.integers(2, 256), max_size=60)


@given(LENGTHS, st.one_of(st.none(), st.integers(1, 30)), st.integers(256, 600))
def test_every_text_stands_in_one_pack_that_is_no_longer_than_allowed(lengths, alone, size):
    found = list(packs(lengths, alone, size))
    assert sorted(i for pack in found for i in pack) == list(range(len(lengths)))
    for pack in found:
        assert len(pack) == 1 or sum(lengths[i] for i in pack) <= size
        assert len(pack) == 1 or (alone is not None and min(lengths[i] for i in pack) >= alone)
        assert [lengths[i] for i in pack] == sorted(lengths[i] for i in pack)


@pytest.mark.parametrize("threads", [1, 2])
def test_no_vector_shows_its_company(threads):
    encoder = load_encoder(threads)
    rng = np.random.default_rng(0)
    texts = [
        " ".join(["union", "bank", "of", "states"][int(i)] for i in rng.integers(0, 4, n)) for n in range(1, 60, 2)
    ]
    together = encoder.embed([*texts, *texts[::-1]])
    alone = np.concatenate([encoder.embed([text]) for text in texts])
    assert np.array_equal(together, np.concatenate([alone, alone[::-1]]))


def test_vectors_are_those_of_the_library_s_own_network():
    from transformers import BertModel

    encoder = MiniLm(threads=1)
    network = BertModel.from_pretrained(model_folder(), local_files_only=True).eval()
    texts = ["No.", "The Bank of the United States has been organized.", "a word and another " * 90]
    with torch.inference_mode():
        for text, vector in zip(texts, encoder.embed(texts), strict=True):
            ids = torch.tensor([encoder._tokenizer.encode(text).ids])
            mean = network(input_ids=ids).last_hidden_state.mean(dim=1)
            assert np.abs(torch.nn.functional.normalize(mean, dim=1)[0].numpy() - vector).max() < 1e-6


def test_a_machine_whose_rows_know_their_company_reads_every_text_alone(monkeypatch):
    product = (torch.randn(8, 16), torch.zeros(8))
    assert rows_alone([product]) is not None
    plain = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, w, b: plain(x, w, b) + len(x) * 1e-3)
    assert rows_alone([product]) is None
    assert list(packs([40, 30, 50], None)) == [[1], [0], [2]]
