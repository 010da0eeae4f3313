"""The form of a chat template, read off its own renderings: which text stands around each role's words.

    shape = chat_shape(tokenizer)
    shape.user       # → Around("<|im_start|>user\\n", "<|im_end|>\\n")
    shape.head       # → what stands in front of a conversation without a system message
    shape.render([{"role": "user", "content": "Hello"}])   # what the template itself gives, to the character

Nothing is guessed from a model's name and no template is parsed: conversations of marked words are rendered, the text
between the marks is taken, and the form that comes out is held against the template on other conversations. A template
that does more than put text around words (one that numbers turns, writes the date, or drops a system message) is
refused, or its system message is, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from foundry_pipeline.errors import FoundryError

Message = Mapping[str, str]
Render = Callable[[Sequence[Message], bool], str]

_SYSTEM, _USER, _ASSISTANT, _AGAIN = "ZqSystemqZ", "ZqUserqZ", "ZqAssistantqZ", "ZqAgainqZ"
# In front of a template it takes the place of the clock.
_DATE = "ZqDateqZ"
_CLOCK = "{%- macro strftime_now(form) -%}" + _DATE + "{%- endmacro -%}"
# Held against the derived form: marks of other languages, of templates and of Modelfiles among them.
_SAID = (
    "What is a faction, sir?",
    'Two lines,\nand "quotes": {{ .Prompt }}, {% if x %}, $5 & <b>so</b>',
    "Ünïcode — “and so on”; 日本語 🎉",
    "1787",
    "Go on.",
)


@dataclass(frozen=True)
class Around:
    """What a template puts before and after the words of one role."""

    before: str
    after: str


@dataclass(frozen=True)
class ChatShape:
    """A conversation is `head`, then each message's words with what stands around them, then `generation`.

    `system` is None where the template takes no system message. Where `folded`, its words stand inside the first user
    message, in front of that one's own; else they are a turn of their own, which stands in place of `head`.
    `trims` says that the template strips blanks around words, which no translation of it can.
    """

    head: str
    user: Around
    assistant: Around
    generation: str
    system: Around | None
    folded: bool
    trims: bool

    def render(self, messages: Sequence[Message]) -> str:
        """The text of a conversation up to where the assistant begins. A system message may only stand first."""
        system = messages[0]["content"] if messages[0]["role"] == "system" else None
        rest = messages[1:] if system is not None else messages
        if system is not None and self.system is None:
            raise ValueError("this template takes no system message")
        told = "" if self.system is None or system is None else f"{self.system.before}{system}{self.system.after}"
        out = [told if told and not self.folded else self.head]
        for place, message in enumerate(rest):
            around = self.user if message["role"] == "user" else self.assistant
            inside = told if self.folded and place == 0 else ""
            out += [around.before, inside, message["content"], around.after]
        return "".join([*out, self.generation])

    def without_beginning(self, beginning: str) -> ChatShape:
        """The same without the token that begins a text, for servers that put it there themselves.

        Raises ValueError where not every conversation begins with it.
        """
        fronts = [self.head] if self.folded or self.system is None else [self.head, self.system.before]
        if not beginning or not all(front.startswith(beginning) for front in fronts):
            raise ValueError(f"conversations do not all begin with {beginning!r}")
        cut = len(beginning)
        system = self.system if self.folded or self.system is None else replace(self.system, before=fronts[1][cut:])
        return replace(self, head=self.head[cut:], system=system)


def template_renderer(tokenizer: Any, *, lead: str = "") -> Render:
    """A tokenizer's own rendering of a conversation: (messages, whether the assistant is to begin) → text.

    `lead` is put in front of the template. Raises FoundryError for a tokenizer without a chat template.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    if not getattr(tokenizer, "chat_template", None):
        raise FoundryError(
            "the tokenizer has no chat template, so nobody can say how the model wants to be asked",
            where=str(getattr(tokenizer, "name_or_path", "")),
            mend="train from an instruction-tuned base whose tokenizer carries one",
        )
    template = lead + tokenizer.get_chat_template()

    def render(messages: Sequence[Message], begins: bool) -> str:
        rendered: Any = render_jinja_template(
            conversations=[[dict(m) for m in messages]],
            chat_template=template,
            add_generation_prompt=begins,
            **tokenizer.special_tokens_map,
        )
        return str(rendered[0][0])

    return render


def chat_shape(tokenizer: Any) -> ChatShape:
    """The form of a tokenizer's chat template. Raises FoundryError for a template that has not this form."""
    from jinja2.exceptions import TemplateError

    render = template_renderer(tokenizer)
    try:
        if _DATE in template_renderer(tokenizer, lead=_CLOCK)([_message("user", _USER)], True):
            raise ValueError("it writes the date of the day, so its text is another one tomorrow")
        shape = _derive(render)
        _verify(shape, render)
    # A template is a program of others: it may fail in any of the ways in which an expression can.
    except (ValueError, TypeError, LookupError, ArithmeticError, TemplateError) as error:
        raise FoundryError(
            f"the chat template cannot be told as text around each role's words: {error}",
            where=str(getattr(tokenizer, "name_or_path", "")),
            mend="serve the GGUF with llama.cpp, which reads the template itself; only a Modelfile needs this form",
        ) from error
    return shape


def _derive(render: Render) -> ChatShape:
    user, reply = _message("user", _USER), _message("assistant", _ASSISTANT)
    front, tail = _between(render([user], True), _USER)
    silent_front, after_user = _between(render([user], False), _USER)
    if front != silent_front or not tail.startswith(after_user):
        raise ValueError("asking the assistant to begin changes more than the end")
    long = render([user, reply, _message("user", _AGAIN)], True)
    first, to_reply, to_user, last = _between(long, _USER, _ASSISTANT, _AGAIN)
    after_reply = _between(render([user, reply], False), _USER, _ASSISTANT)[-1]
    if first != front or last != tail or not to_reply.startswith(after_user) or not to_user.startswith(after_reply):
        raise ValueError("what stands around a message depends on the messages beside it")
    before_user = to_user[len(after_reply) :]
    if not front.endswith(before_user):
        raise ValueError("the first user message stands in another form than the later ones")
    shape = ChatShape(
        head=front[: len(front) - len(before_user)],
        user=Around(before_user, after_user),
        assistant=Around(to_reply[len(after_user) :], after_reply),
        generation=tail[len(after_user) :],
        system=None,
        folded=False,
        trims=False,
    )
    return _with_system(shape, render, front, tail)


def _with_system(shape: ChatShape, render: Render, front: str, tail: str) -> ChatShape:
    from jinja2.exceptions import TemplateError

    trims = " x " not in render([_message("user", " x ")], True)
    shape = replace(shape, trims=trims)
    try:
        text = render([_message("system", _SYSTEM), _message("user", _USER)], True)
    except TemplateError:
        return shape
    if _SYSTEM not in text:
        return shape
    before, after, end = _between(text, _SYSTEM, _USER)
    if end != tail:
        raise ValueError("a system message changes what follows the user's")
    if before.startswith(front):
        return replace(shape, system=Around(before[len(front) :], after), folded=True)
    if not after.endswith(shape.user.before):
        raise ValueError("a system message changes how the user's stands")
    return replace(shape, system=Around(before, after[: len(after) - len(shape.user.before)]))


def _verify(shape: ChatShape, render: Render) -> None:
    turns = [_message("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(_SAID)]
    system = _message("system", "Speak as a farmer would,\nplainly {so}.")
    for count in range(1, len(turns) + 1, 2):
        for lead in ([], [system] if shape.system else []):
            messages = [*lead, *turns[:count]]
            if (ours := shape.render(messages)) != (theirs := render(messages, True)):
                place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(ours))
                raise ValueError(
                    f"a conversation of {len(messages)} messages comes out as …{theirs[max(0, place - 20) : place + 40]!r}"
                )


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _between(text: str, *marks: str) -> list[str]:
    """The pieces of a text around marks that must each occur once, in this order."""
    pieces = []
    for mark in marks:
        if text.count(mark) != 1:
            raise ValueError(f"it gives a message's words {text.count(mark)} times, or in another order")
        piece, text = text.split(mark)
        pieces.append(piece)
    return [*pieces, text]
