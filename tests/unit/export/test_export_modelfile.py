"""A Modelfile asks as the tokenizer does: same text, same ids, same ends; a template that cannot be told is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from go_templates import modelfile_parts, render
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import FAMILIES

from foundry_pipeline.declarations import load
from foundry_pipeline.declarations.common import Sampling
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.chat_shape import Around, ChatShape, chat_shape
from foundry_pipeline.export.model_folder import asked
from foundry_pipeline.export.modelfile import ModelfileData, go_template, modelfile, stops
from foundry_pipeline.models.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[3]
SAMPLING = Sampling(temperature=0.7, top_k=40, top_p=0.95, max_tokens=300)


def tokenizer_with(folder: Path, template: str | None) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def both_ways(template: str, messages: list[dict[str, str]]) -> list[str]:
    """The text as Ollama renders a conversation: over its messages, and over one system message and one prompt."""
    system = "".join(m["content"] for m in messages if m["role"] == "system")
    listed = [{"Role": m["role"], "Content": m["content"]} for m in messages]
    texts = [render(template, {"System": system, "Messages": listed, "Prompt": "", "Response": ""})]
    users = [m["content"] for m in messages if m["role"] == "user"]
    if len(users) == 1 and messages[-1]["role"] == "user":
        texts.append(render(template, {"System": system, "Prompt": users[0], "Response": "", "Messages": []}))
    return texts


def conversations(shape: ChatShape) -> list[list[dict[str, str]]]:
    said = ['Say "so", {you}.', "{{ .Prompt }} and {% if %}", "Ünï\n\n日本"]
    turns = [{"role": ("user", "assistant", "user")[i], "content": text} for i, text in enumerate(said)]
    made = [turns[:1], turns]
    if shape.system is not None:
        made += [[{"role": "system", "content": "Be brief,\nbe {plain}."}, *m] for m in made]
    return made


@pytest.fixture(scope="module")
def rendered(tiny: Path, tiny_gguf: Path) -> dict[str, list[str]]:
    shape, ends = asked(tiny, tiny_gguf / "q4_k_m.gguf")
    data = ModelfileData("madison-Q4_K_M.gguf", shape, ends, SAMPLING, "Apache-2.0", notes=("two\nlines",))
    return modelfile_parts(modelfile(data))


def test_every_prompt_of_the_suite_becomes_the_tokenizers_ids(
    tiny: Path, tiny_gguf: Path, rendered: dict[str, list[str]]
) -> None:
    tokenizer = tokenizer_with(tiny, None)
    prompts = load(ROOT, "laptop").characters["madison"].suite.prompts
    assert len(prompts) == 36
    [template] = rendered["TEMPLATE"]
    with Vocabulary(tiny_gguf / "q4_k_m.gguf") as vocabulary:
        assert vocabulary.begins() is None
        for prompt in prompts:
            messages = [{"role": "user", "content": prompt.text}]
            wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            texts = both_ways(template, messages)
            assert len(texts) == 2
            for text in texts:
                assert vocabulary.tokenize(text) == wanted, prompt.id


def test_stops_and_sampling_are_those_of_tokenizer_and_declaration(tiny: Path, rendered: dict[str, list[str]]) -> None:
    tokenizer = tokenizer_with(tiny, None)
    ends = json.loads((tiny / "generation_config.json").read_text())["eos_token_id"]
    said = [p.removeprefix("stop ") for p in rendered["PARAMETER"] if p.startswith("stop ")]
    assert said == tokenizer.convert_ids_to_tokens(ends)
    assert said[0] == tokenizer.eos_token
    others = {p.split(" ")[0]: float(p.split(" ")[1]) for p in rendered["PARAMETER"] if not p.startswith("stop ")}
    expected = {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "min_p": 0, "repeat_penalty": 1, "num_predict": 300}
    assert others == expected
    assert rendered["FROM"] == ["./madison-Q4_K_M.gguf"]
    assert rendered["LICENSE"] == ["Apache-2.0"]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_template_of_each_family_is_told_to_the_character(tokenizer_folder: Path, family: str) -> None:
    tokenizer = tokenizer_with(tokenizer_folder, FAMILIES[family])
    shape = chat_shape(tokenizer)
    template = go_template(shape)
    for messages in conversations(shape):
        wanted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert wanted == shape.render(messages)
        assert all(text == wanted for text in both_ways(template, messages)), messages
    assert (shape.system is None) == (family == "gemma_1")
    assert shape.folded == (family in ("gemma_3", "llama_2"))
    assert shape.trims == (family in ("gemma_1", "gemma_3", "llama_3"))


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ strftime_now('%d %b %Y') }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", "date"),
        ("{% for m in messages %}{{ loop.index ~ m.role ~ m.content }}|{% endfor %}", "first user message stands"),
        ("{% for m in messages %}<{{ m.role }}>{{ m.content | upper }}{% endfor %}", "0 times"),
        ("{{ messages[-1].content }}", "0 times"),
        ("{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ m.content }}{% endfor %}", "2 times"),
        ("{% for m in messages %}<{{ m.role }}>{{ m.content | replace('\"', '') }}{% endfor %}", "comes out as"),
        ("{% for m in messages %}<{{ m.role }}>{{ m.content[:40] }}{% endfor %}", "comes out as"),
        ("{{ messages.nothing.at.all }}", "cannot be told"),
        ("{% for m in %}", "cannot be told"),
        ("{{ raise_exception('not today') }}", "not today"),
    ],
)
def test_a_template_that_does_more_than_stand_around_words_is_refused(
    tokenizer_folder: Path, template: str, says: str
) -> None:
    with pytest.raises(FoundryError, match=says):
        chat_shape(tokenizer_with(tokenizer_folder, template))


def test_a_tokenizer_without_a_template_is_refused(tokenizer_folder: Path) -> None:
    tokenizer = tokenizer_with(tokenizer_folder, None)
    tokenizer.chat_template = None
    with pytest.raises(FoundryError, match="no chat template"):
        chat_shape(tokenizer)


def test_where_the_server_begins_the_text_the_template_does_not(tiny: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    """Ollama puts the beginning-of-text token in front where the GGUF says so; twice would be one too many."""
    model = tmp_path / "begins"
    shutil.copytree(tiny, model)
    (model / "chat_template.jinja").write_text(FAMILIES["llama_3"])
    gguf = tmp_path / "begins.gguf"
    shutil.copy(tiny_gguf / "f16.gguf", gguf)
    told = GGUFReader(gguf, "r+").fields["tokenizer.ggml.add_bos_token"]
    told.parts[told.data[0]][0] = True
    shape, _ = asked(model, gguf)
    template, tokenizer = go_template(shape), tokenizer_with(model, None)
    with Vocabulary(gguf) as vocabulary:
        assert vocabulary.begins() == tokenizer.bos_token
        for messages in conversations(shape):
            wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            for text in both_ways(template, messages):
                assert [tokenizer.bos_token_id, *vocabulary.tokenize(text)] == wanted
    # ChatML of this tokenizer begins with the same token by its own form; a template that does not is refused.
    (model / "chat_template.jinja").write_text(FAMILIES["plain"])
    with pytest.raises(FoundryError, match="begin every text with"):
        asked(model, gguf)


_literal = st.text(st.sampled_from(list('ab <|>\n{}"%$.\\-')), max_size=12)
_words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
_around = st.builds(Around, _literal, _literal)


@given(
    shape=st.builds(
        ChatShape, _literal, _around, _around, _literal, st.none() | _around, st.booleans(), st.just(False)
    ),
    said=st.lists(_words, min_size=1, max_size=5),
    system=st.none() | _words,
)
def test_whatever_stands_around_words_survives_both_formats(
    shape: ChatShape, said: list[str], system: str | None
) -> None:
    messages = [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(said)]
    if system is not None and shape.system is not None:
        messages.insert(0, {"role": "system", "content": system})
    text = modelfile(ModelfileData("x.gguf", shape, ("<|end|>",), SAMPLING, "Apache-2.0"))
    [template] = modelfile_parts(text)["TEMPLATE"]
    assert template == go_template(shape)
    assert all(rendered == shape.render(messages) for rendered in both_ways(template, messages))


def test_what_a_modelfile_cannot_hold_is_refused() -> None:
    shape = ChatShape("", Around("<u>", "</u>"), Around("<a>", "</a>"), "<a>", None, False, False)
    for license_text in ('all """ rights', 'so called "free"', "null\0byte"):
        with pytest.raises(FoundryError, match="cannot hold"):
            modelfile(ModelfileData("x.gguf", shape, (), SAMPLING, license_text))
    assert stops(["<|im_end|>", "<|endoftext|>", "<|im_end|>", ""]) == ("<|im_end|>", "<|endoftext|>")
    with pytest.raises(ValueError, match="no system message"):
        shape.render([{"role": "system", "content": "x"}, {"role": "user", "content": "y"}])
