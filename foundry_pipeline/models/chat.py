"""A conversation as the text that a model is fed: its own chat template, rendered by `transformers`' own code.

Both backends come through here, so that one model gets one text whichever of them serves it. SmolLM2's template puts a
system message of its own in front when a conversation has none; it is kept, since the model was trained so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.requests import ChatRequest


def render(template: str, request: ChatRequest, special_tokens: Mapping[str, str]) -> str:
    """The conversation's text up to where the assistant begins to speak.

    `special_tokens` are the names a template may refer to (bos_token, eos_token, …).
    Raises FoundryError where the template refuses the conversation, as some do when roles do not alternate.
    """
    from jinja2.exceptions import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        names: dict[str, Any] = dict(special_tokens)
        rendered: Any = render_jinja_template(
            conversations=[request.chat()],
            chat_template=template,
            add_generation_prompt=True,
            **names,
        )
    except TemplateError as error:
        raise FoundryError(
            f"the model's chat template refuses the conversation: {error}",
            where=f"request {request.request_id}",
            mend="let user and assistant take turns, or leave the system message out",
        ) from error
    return str(rendered[0][0])


def check_lengths(requests: Sequence[ChatRequest], prompt_tokens: Sequence[int], context: int, title: str) -> None:
    """Refuse a request whose prompt and longest answer do not fit the model's context (tokens)."""
    for request, length in zip(requests, prompt_tokens, strict=True):
        if length + request.max_tokens > context:
            raise FoundryError(
                f"the prompt has {length} tokens and the answer may have {request.max_tokens}; "
                f"{title} holds {context} together",
                where=f"request {request.request_id}",
                mend="shorten the prompt, or lower max_tokens of its declaration or profile",
            )
