"""Embeddings that are kept: equal to the encoder's, made once, and never believed when damaged."""

import sqlite3

import numpy as np
import pytest

from foundry_pipeline.corpus import embeddings
from foundry_pipeline.corpus.embeddings import KeptVectors
from foundry_pipeline.corpus.minilm import load_encoder
from foundry_pipeline.errors import FoundryError

TEXTS = ["The militia is the great bulwark of liberty.", "Peace with all nations.", "The militia is ready.", ""]


@pytest.fixture
def asked(monkeypatch):
    """Texts that reached the encoder, which works as ever."""
    seen: list[str] = []
    encoder = load_encoder(1)

    class Counting:
        def embed(self, texts):
            seen.extend(texts)
            return encoder.embed(texts)

    monkeypatch.setattr(embeddings, "load_encoder", lambda threads: Counting())
    return seen


def test_a_text_is_embedded_once_and_as_the_encoder_does(tmp_path, asked):
    first = KeptVectors(tmp_path / "vectors.db", threads=1).embed([TEXTS[0], TEXTS[1], TEXTS[0]])
    assert asked == TEXTS[:2]
    again = KeptVectors(tmp_path / "vectors.db", threads=1).embed([TEXTS[3], TEXTS[1], TEXTS[2], TEXTS[0]])
    assert asked == [TEXTS[0], TEXTS[1], TEXTS[3], TEXTS[2]]
    plain = load_encoder(1).embed(TEXTS)
    assert np.array_equal(first, plain[[0, 1, 0]])
    assert np.array_equal(again, plain[[3, 1, 2, 0]])
    assert KeptVectors(tmp_path / "vectors.db", threads=1).embed([]).shape == (0, 384)


def test_another_number_of_threads_is_another_encoder(tmp_path, asked):
    KeptVectors(tmp_path / "vectors.db", threads=1).embed(TEXTS[:1])
    KeptVectors(tmp_path / "vectors.db", threads=2).embed(TEXTS[:1])
    assert asked == [TEXTS[0], TEXTS[0]]


@pytest.mark.parametrize("damage", ["vector = zeroblob(length(vector))", "vector = substr(vector, 1, 100)"])
def test_a_damaged_vector_is_made_anew(tmp_path, asked, damage):
    file = tmp_path / "vectors.db"
    wanted = KeptVectors(file, threads=1).embed(TEXTS)
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE vectors SET {damage}")
    connection.close()
    asked.clear()
    assert np.array_equal(KeptVectors(file, threads=1).embed(TEXTS), wanted)
    assert sorted(asked) == sorted(TEXTS)
    asked.clear()
    KeptVectors(file, threads=1).embed(TEXTS)
    assert asked == []


def test_a_file_that_is_no_database_names_what_mends_it(tmp_path):
    file = tmp_path / "vectors.db"
    file.write_bytes(b"not a database, and long enough to be taken for one: " * 40)
    with pytest.raises(FoundryError) as caught:
        KeptVectors(file, threads=1)
    assert f"rm '{file}'" in caught.value.mend
