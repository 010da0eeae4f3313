"""An Ollama Modelfile whose template, stops and sampling are the model's own.

    FROM ./madison_r2-Q4_K_M.gguf
    TEMPLATE \"\"\"{{ if .Messages }}{{ if not .System }}<|im_start|>system …\"\"\"
    PARAMETER stop "<|im_end|>"
    PARAMETER temperature 1

Ollama speaks Go templates and reads no Jinja: without a TEMPLATE it guesses one from the file's, or sends bare text. What
is written here is translated from the form that the tokenizer's template shows (`chat_shape`). It serves both ways in
which Ollama renders: over `.Messages`, and over `.System`, `.Prompt` and `.Response` where there are none.

Ollama puts the beginning-of-text token in front by itself where the GGUF says so, and the template must then not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foundry_pipeline.declarations.common import Sampling
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.chat_shape import ChatShape
from foundry_pipeline.plain import plain


@dataclass(frozen=True)
class ModelfileData:
    """What a Modelfile says. `file` lies beside it; `notes` are comment lines; `adapter` a LoRA laid over `file`."""

    file: str
    shape: ChatShape
    stops: tuple[str, ...]
    sampling: Sampling
    license: str
    notes: tuple[str, ...] = ()
    adapter: str | None = None
    system: str | None = None


def go_template(shape: ChatShape) -> str:
    """The Go template that renders a conversation as the shape does, without a closing newline of its own."""
    system, user, assistant = shape.system, shape.user, shape.assistant
    head, generation = _text(shape.head), _text(shape.generation)
    reply = f'{{{{ else if eq .Role "assistant" }}}}{_text(assistant.before)}{{{{ .Content }}}}{_text(assistant.after)}'
    if system is None:
        lead = older = head
        own = f'{{{{ if eq .Role "user" }}}}{_text(user.before)}{{{{ .Content }}}}{_text(user.after)}'
        prompt = f"{_text(user.before)}{{{{ .Prompt }}}}"
        loop = "{{ range .Messages }}"
    elif shape.folded:
        lead = older = head
        inside = f"{_text(system.before)}{{{{ $.System }}}}{_text(system.after)}"
        own = (
            f'{{{{ if eq .Role "user" }}}}{_text(user.before)}{{{{ if and $.System (eq $i 1) }}}}{inside}{{{{ end }}}}'
            f"{{{{ .Content }}}}{_text(user.after)}"
        )
        prompt = f"{_text(user.before)}{{{{ if .System }}}}{inside}{{{{ end }}}}{{{{ .Prompt }}}}"
        loop = "{{ range $i, $m := .Messages }}"
    else:
        lead = f"{{{{ if not .System }}}}{head}{{{{ end }}}}" if head else ""
        told = f"{_text(system.before)}{{{{ .System }}}}{_text(system.after)}"
        older = f"{{{{ if .System }}}}{told}{{{{ else }}}}{head}{{{{ end }}}}"
        own = (
            f'{{{{ if eq .Role "system" }}}}{_text(system.before)}{{{{ .Content }}}}{_text(system.after)}'
            f'{{{{ else if eq .Role "user" }}}}{_text(user.before)}{{{{ .Content }}}}{_text(user.after)}'
        )
        prompt = f"{_text(user.before)}{{{{ .Prompt }}}}"
        loop = "{{ range .Messages }}"
    ended = f"{{{{ if .Response }}}}{_text(assistant.after)}{{{{ end }}}}"
    return (
        f"{{{{ if .Messages }}}}{lead}{loop}{own}{reply}{{{{ end }}}}{{{{ end }}}}{generation}"
        f"{{{{ else }}}}{older}{{{{ if .Prompt }}}}{prompt}{_text(user.after)}{{{{ end }}}}"
        f"{generation}{{{{ .Response }}}}{ended}{{{{ end }}}}"
    )


def modelfile(data: ModelfileData) -> str:
    """The Modelfile's text. Raises FoundryError for a text that its format cannot hold."""
    sampling = data.sampling
    lines = [f"# {plain(note)}" for note in data.notes]
    lines += [f"FROM ./{data.file}"]
    lines += [f"ADAPTER ./{data.adapter}"] if data.adapter else []
    lines += [f"TEMPLATE {_block(go_template(data.shape))}"]
    lines += [f"SYSTEM {_block(data.system)}"] if data.system else []
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in data.stops]
    lines += [
        f"PARAMETER temperature {_number(sampling.temperature)}",
        f"PARAMETER top_k {sampling.top_k}",
        f"PARAMETER top_p {_number(sampling.top_p)}",
        # Ollama's own values where a Modelfile is silent; nothing here was trained or measured under them.
        "PARAMETER min_p 0",
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_predict {sampling.max_tokens}",
        f"LICENSE {_block(data.license)}",
    ]
    return "\n".join(lines) + "\n"


def stops(end_tokens: Sequence[str]) -> tuple[str, ...]:
    """The texts at which an answer ends, each once, in the order given."""
    return tuple(dict.fromkeys(token for token in end_tokens if token))


def _text(literal: str) -> str:
    """Literal text inside a Go template: a brace could open an action, and three quotes would end the Modelfile's block."""
    return literal.replace("{", '{{ "{" }}').replace('"""', '{{ "\\"\\"\\"" }}')


def _block(text: str) -> str:
    if '"""' in text or text.endswith('"') or "\0" in text:
        raise FoundryError(
            "a Modelfile cannot hold a text with three quotes in a row, or one that ends with a quote",
            where=repr(text[:60]),
            mend="take the quotes out of it, or serve the GGUF with llama.cpp",
        )
    return f'"""{text}"""'


def _quoted(text: str) -> str:
    if '"' in text or "\n" in text or "\r" in text:
        return _block(text)
    return f'"{text}"'


def _number(value: float) -> str:
    return f"{value:g}"
