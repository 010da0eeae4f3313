"""One conversation, one list of token ids, whichever backend serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.hf_backend import TransformersBackend
from foundry_pipeline.models.llama_backend import LlamaBackend
from foundry_pipeline.models.requests import ChatRequest, ModelRef
from foundry_pipeline.models.vocabulary import Vocabulary, check_parity, repair_tokenizer

CONVERSATIONS = {
    "user alone": (("user", "What is a faction?"),),
    "system": (("system", "You are James Madison."), ("user", "Who are you?")),
    "turns": (("user", "Hello"), ("assistant", "Good day, Sir."), ("user", "In 1787, what passed?")),
    "numbers and marks": (("user", "  ½ of 1,787 “votes” — naïve?\n\n\tYes…  "),),
    "other scripts": (("user", "Mađison 日本 ٣ Ⅷ 🎉"),),
    "special tokens in the text": (("user", "say <|im_end|> and <|im_start|>system, or <repo_name>"),),
}


@pytest.fixture(scope="module")
def vocabulary(gguf: Path) -> Iterator[Vocabulary]:
    with Vocabulary(gguf) as opened:
        yield opened


@pytest.fixture(scope="module")
def tokenizer(dense: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(dense)


@pytest.fixture(scope="module")
def backends(dense: Path, gguf: Path) -> tuple[TransformersBackend, LlamaBackend]:
    return (
        TransformersBackend(ModelRef("transformers", str(dense), "d" * 64, None, None, "dense"), threads=2),
        LlamaBackend(ModelRef("llama_cpp", str(gguf), "c" * 64, None, None, "gguf"), threads=2),
    )


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_every_way_to_the_model_gives_the_same_ids(
    messages: tuple[tuple[str, str], ...], tokenizer: Any, backends: tuple[TransformersBackend, LlamaBackend]
) -> None:
    request = ChatRequest("r", messages, 1, 0.0, 0, 1.0, 0)
    reference = tokenizer.apply_chat_template(request.chat(), add_generation_prompt=True)["input_ids"]
    transformers, llama = backends
    assert transformers.prompt_ids(request) == reference
    assert llama.prompt_ids(request) == reference


def test_the_template_of_the_model_is_left_as_it_is(tokenizer: Any, backends: tuple[Any, LlamaBackend]) -> None:
    text = tokenizer.decode(backends[1].prompt_ids(ChatRequest("r", (("user", "Hi"),), 1, 0.0, 0, 1.0, 0)))
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


# Control characters for which the vocabulary of SmolLM2 has no token.
WITHOUT_A_TOKEN = "\x04\x06\x13\x14\x16\x1d"


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs", "Cn"], exclude_characters=WITHOUT_A_TOKEN), max_size=60))
def test_any_text_of_assigned_characters_has_the_same_ids(tokenizer: Any, vocabulary: Vocabulary, text: str) -> None:
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == vocabulary.tokenize(text)


@pytest.mark.parametrize("text", ["\x9f\U00065000", *(f"/{c}/" for c in WITHOUT_A_TOKEN)])
def test_the_known_differences(tokenizer: Any, vocabulary: Vocabulary, text: str) -> None:
    """Where this fails the libraries agree at last, and the test above may draw the character."""
    assert tokenizer(text, add_special_tokens=False)["input_ids"] != vocabulary.tokenize(text)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(["1", "½", "٣", " ", "\n", "'s", "Ab", "é", "<|im_end|>", "—", "\u00a0"]), max_size=12))
def test_hard_joints_have_the_same_ids(tokenizer: Any, vocabulary: Vocabulary, parts: list[str]) -> None:
    text = "".join(parts)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == vocabulary.tokenize(text)


def test_ids_decode_to_the_text(tokenizer: Any, vocabulary: Vocabulary) -> None:
    text = "In 1787, 12 states; naïve “quotes” 日本 🎉"
    assert tokenizer.decode(vocabulary.tokenize(text), clean_up_tokenization_spaces=False) == text


def test_a_tokenizer_without_the_rule_for_digits_is_refused(dense: Path, vocabulary: Vocabulary) -> None:
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    broken: Any = AutoTokenizer.from_pretrained(dense)
    broken.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(FoundryError, match="smollm"):
        check_parity(broken, vocabulary, where="here")
    repair_tokenizer(broken, "smollm")
    check_parity(broken, vocabulary, where="here")


def test_end_tokens_are_those_at_which_llama_cpp_stops(dense: Path, vocabulary: Vocabulary) -> None:
    from transformers import GenerationConfig

    ends = vocabulary.end_of_generation()
    assert [vocabulary.tokenize(t)[0] for t in ("<|im_end|>", "<|endoftext|>")] == ends[:2]
    assert GenerationConfig.from_pretrained(dense).eos_token_id == ends


def test_a_file_that_is_no_model_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(FoundryError, match=r"x\.gguf"):
        Vocabulary(path)
    assert "llama_model_loader: loaded meta data" not in capfd.readouterr().err


def test_metadata_longer_than_the_first_buffer_is_read_whole(vocabulary: Vocabulary) -> None:
    template = vocabulary.metadata("tokenizer.chat_template")
    assert template is not None
    assert template.rstrip().endswith("{% endif %}")
    assert vocabulary.metadata("no.such.key") is None


def test_render_passes_on_a_template_s_refusal(ask: Callable[..., ChatRequest]) -> None:
    from foundry_pipeline.models.chat import render

    with pytest.raises(FoundryError, match="take turns"):
        render("{{ raise_exception('roles must alternate') }}", ask("Hi", request_id="gt-01"), {})
