import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.evaluation.ngram import UNSEEN_WORDS, TrigramModel
from foundry_pipeline.evaluation.overlap import Overlap, Overlaps

word = st.sampled_from(["war", "peace", "and", "the", "of"])
text = st.lists(word, max_size=12)
pages = st.lists(st.lists(word, min_size=1, max_size=12), min_size=1, max_size=5)


def longest_run(a: list[str], b: list[str]) -> int:
    spans = {tuple(a[i:j]) for i in range(len(a)) for j in range(i + 1, len(a) + 1)}
    return max((j - i for i in range(len(b)) for j in range(i + 1, len(b) + 1) if tuple(b[i:j]) in spans), default=0)


@given(pages, text)
def test_longest_overlap_is_that_of_every_pair_tried(passages, answer):
    ids = [f"p{i}" for i in range(len(passages))]
    runs = [longest_run(p, answer) for p in passages]
    found = Overlaps(ids, [" ".join(p) for p in passages]).longest(" ".join(answer))
    assert found.words == max(runs)
    assert found.passage_id == (ids[runs.index(max(runs))] if max(runs) else None)


@given(pages, text, st.integers(2, 6))
def test_sharing_names_the_passages_with_a_run_that_long(passages, answer, size):
    found = Overlaps([""] * len(passages), [" ".join(p) for p in passages]).sharing(" ".join(answer), size)
    assert found == {i for i, p in enumerate(passages) if longest_run(p, answer) >= size}


def test_a_run_of_less_than_two_words_is_no_sharing():
    with pytest.raises(ValueError, match="1 words"):
        Overlaps(["p"], ["war"]).sharing("war", 1)


def test_overlap_reads_through_case_points_and_unicode():
    index = Overlaps(["p"], ["The militia's the great bulwark; nay, more."])
    assert index.longest("the MILITIA’S the great — bulwark!") == Overlap(5, "p")
    assert index.longest("") == Overlap(0, None)


@given(pages, st.lists(word, min_size=1, max_size=10), st.data())
def test_leaving_a_page_out_is_the_same_as_never_having_read_it(passages, answer, data):
    out = data.draw(st.sets(st.integers(0, len(passages) - 1), max_size=len(passages) - 1))
    kept = [p for i, p in enumerate(passages) if i not in out]
    assert TrigramModel(passages).surprise(answer, out) == pytest.approx(TrigramModel(kept).surprise(answer))


@given(pages, word, word)
def test_the_chances_of_all_next_words_sum_to_one(passages, first, second):
    model = TrigramModel(passages)
    before = 2 * model.surprise([first, second])
    known = {w for p in passages for w in p}

    def chance(third: str) -> float:
        return math.exp(before - 3 * model.surprise([first, second, third]))

    total = sum(chance(w) for w in known) + (UNSEEN_WORDS - len(known)) * chance("unheard")
    assert total == pytest.approx(1, abs=1e-6)


def test_what_was_said_before_surprises_less():
    model = TrigramModel([["the", "great", "bulwark", "of", "our", "security"], ["peace", "with", "all", "nations"]])
    said = model.surprise(["the", "great", "bulwark"])
    assert said < model.surprise(["bulwark", "great", "the"]) < model.surprise(["zebra", "crossing", "ahead"])


def test_surprise_of_nothing_is_refused():
    with pytest.raises(ValueError, match="without words"):
        TrigramModel([["war"]]).surprise([])


def test_with_every_page_left_out_all_words_are_alike():
    assert TrigramModel([["war"]]).surprise(["war"], {0}) == pytest.approx(math.log(UNSEEN_WORDS))
