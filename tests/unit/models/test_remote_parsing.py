"""What comes over the wire, however malformed, is an answer or a named failure; never a crash, never half an answer."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.keys import redact
from foundry_pipeline.models.remote import remote_ref
from foundry_pipeline.models.remote.anthropic_messages import message_body, read_message
from foundry_pipeline.models.remote.client import Answer, request_identity, request_key
from foundry_pipeline.models.remote.exchange import json_object
from foundry_pipeline.models.remote.failures import AttemptFailed, Failure, of_status, shown
from foundry_pipeline.models.remote.openai_compatible import read_completion
from foundry_pipeline.models.remote.retry import LONGEST_SECONDS, pause, retry_after
from foundry_pipeline.models.remote.service import address, service_of
from foundry_pipeline.models.requests import ChatRequest
from tests.servers.asking import claude

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
blocks = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "thinking", "tool_use"]) | values}, optional={"text": values}
    )
    | values,
    max_size=3,
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "content": blocks | values,
        "stop_reason": st.sampled_from(["end_turn", "max_tokens", "refusal", "pause_turn", "brand_new"]) | values,
        "usage": st.dictionaries(st.sampled_from(["input_tokens", "output_tokens", "cache_read_input_tokens"]), values)
        | values,
    },
)
completions = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "message": st.fixed_dictionaries({}, optional={"content": blocks | values, "refusal": values})
                    | values,
                    "finish_reason": st.sampled_from(["stop", "length", "content_filter"]) | values,
                },
            )
            | values,
            max_size=2,
        )
        | values,
        "usage": st.dictionaries(
            st.sampled_from(["prompt_tokens", "completion_tokens", "prompt_tokens_details"]), values
        )
        | values,
    },
)


def outcome(read: Callable[[Any], Answer], value: Any) -> Answer | Failure:
    try:
        return read(value)
    except AttemptFailed as error:
        return error.failure


@given(messages)
def test_any_message_is_an_answer_or_a_named_failure(message: dict[str, Any]) -> None:
    answer = outcome(read_message, message)
    if isinstance(answer, Failure):
        assert (answer.deserves, answer.billed) == ("retry", True)
        return
    assert isinstance(answer.text, str)
    assert (answer.finish_reason == "stop") == (message["stop_reason"] in ("end_turn", "stop_sequence"))
    if answer.usage is not None:
        assert min(answer.usage.input, answer.usage.output, answer.usage.cache_read, answer.usage.cache_write) >= 0


@given(completions)
def test_any_completion_is_an_answer_or_a_named_failure(completion: dict[str, Any]) -> None:
    answer = outcome(read_completion, completion)
    if isinstance(answer, Failure):
        assert (answer.deserves, answer.billed) == ("retry", True)
        return
    assert isinstance(answer.text, str)
    assert answer.usage is None or answer.usage.prompt >= 0


def test_text_is_gathered_from_text_blocks_wherever_they_stand() -> None:
    message = {
        "stop_reason": "end_turn",
        "content": [
            {"type": "thinking", "thinking": "Hm."},
            {"type": "text", "text": "The lamp "},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "burned."},
        ],
        "usage": {"input_tokens": 5, "output_tokens": 7, "cache_creation_input_tokens": None},
    }
    answer = read_message(message)
    assert answer.text == "The lamp burned."
    assert answer.usage is not None
    assert (answer.usage.prompt, answer.usage.output) == (5, 7)
    for broken in (None, {}, {"input_tokens": -1, "output_tokens": 2}, {"input_tokens": True, "output_tokens": 2}, "5"):
        assert read_message({**message, "usage": broken}).usage is None


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b'{"a": 1', b'{"a": NaN}', b"[1]", b"\xff\xfe", b'{"a": 1}{"b": 2}', b"[" * 10_000]
)
def test_a_body_that_is_no_object_is_named(data: bytes) -> None:
    with pytest.raises(AttemptFailed):
        json_object(data)


@given(st.text(max_size=40))
def test_any_retry_after_is_seconds_or_nothing(value: str) -> None:
    seconds = retry_after(value)
    assert seconds is None or 0 <= seconds < float("inf")


def test_retry_after_is_read_in_seconds_and_as_a_date() -> None:
    now = dt.datetime(2026, 5, 1, 12, 0, tzinfo=dt.UTC)
    assert retry_after("7") == 7
    assert retry_after("-7") == 0
    assert retry_after(format_datetime(now + dt.timedelta(seconds=90)), now=now) == 90
    assert retry_after(format_datetime(now - dt.timedelta(days=1)), now=now) == 0
    assert [retry_after(bad) for bad in ("nan", "inf", "1e999", "soon", None)] == [None] * 5


@given(st.integers(1, 60), st.floats(0, 1), st.none() | st.floats(0, 3600))
def test_a_pause_is_bounded_and_keeps_what_the_server_asked_for(attempt: int, noise: float, wait: float | None) -> None:
    seconds = pause(attempt=attempt, wait=wait, random=noise)
    assert 0 <= seconds <= LONGEST_SECONDS if wait is None else wait <= seconds <= wait + 1


@given(st.integers(100, 599), st.text())
def test_every_status_deserves_something(status: int, text: str) -> None:
    failure = of_status(status, text, provider="anthropic")
    assert not failure.billed
    assert failure.deserves == ("retry" if status in (408, 409, 429) or status >= 500 else failure.deserves)
    assert "\x1b" not in failure.told()
    assert "\n" not in failure.told()


def test_keys_are_taken_out_of_whatever_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "plain-secret-1234")
    # Put together here, so that no text of this repository has the shape of a key.
    shaped = "sk-" + "ant-api03-" + "x" * 30
    text = redact(f"bad key plain-secret-1234 and {shaped}; task-force stays")
    assert "plain-secret" not in text
    assert shaped not in text
    assert "task-force stays" in text
    assert "plain-secret" not in shown("x" * 290 + " plain-secret-1234")


def test_an_address_is_checked_before_a_key_is_sent_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k" * 12)
    for bad in ("127.0.0.1:8000", "http://me:pass@host", "file:///etc/passwd", "http://host/?a=b", "http://["):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", bad)
        with pytest.raises(FoundryError, match="no address of a server") as caught:
            address(claude())
        assert "pass@" not in str(caught.value)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://localhost:1/")
    service = service_of(claude())
    assert service.base_urls == ("http://localhost:1",)
    assert "k" * 12 not in repr(service)


def test_a_key_of_the_cache_covers_what_bears_on_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    one = ChatRequest("a", (("user", "Hi"),), 9, 0.5, 0, 1.0, 3, system=(("s", True),), schema='{"type": "object"}')
    model = claude()
    base = request_key(model, one)
    assert base == request_identity(model, one)
    fields = one.__dict__
    same = [{"request_id": "b"}, {"temperature": 0.9}, {"top_k": 5}]
    other: list[dict[str, Any]] = [
        {"messages": (("user", "Ho"),)},
        {"max_tokens": 10},
        {"seed": 4},
        {"system": (("s", False),)},
        {"schema": ""},
    ]
    assert all(request_key(model, ChatRequest(**{**fields, **change})) == base for change in same)
    assert len({request_key(model, ChatRequest(**{**fields, **change})) for change in other} | {base}) == len(other) + 1
    assert request_key(claude(effort="low"), one) != base
    assert request_key(claude(concurrency=1, timeout_seconds=1.0), one) == base
    assert request_key(remote_ref("anthropic", "another"), one) != base
    # Another server's answers are kept apart, unless the declaration gives the server a name; the identity is the same.
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://localhost:1")
    assert request_key(model, one) != base
    assert request_identity(model, one) == base
    named = request_key(claude(service="mine"), one)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://localhost:2")
    assert request_key(claude(service="mine"), one) == named


def test_no_more_blocks_are_marked_for_the_cache_than_the_interface_takes() -> None:
    request = ChatRequest("a", (("user", "Hi"),), 9, 0.5, 0, 1.0, 3, system=tuple((f"b{i}", True) for i in range(7)))
    marked = [i for i, block in enumerate(message_body(claude(), request)["system"]) if "cache_control" in block]
    assert marked == [3, 4, 5, 6]
    assert json.dumps(message_body(claude(), request)) == json.dumps(message_body(claude(), request))


def test_half_a_character_of_an_answer_can_be_written_down() -> None:
    reply = Answer("whole \ud83d\ude00, half \ud83d.", "stop", None).reply("id", "hash", cost=None)
    assert reply.text == "whole \N{GRINNING FACE}, half \N{REPLACEMENT CHARACTER}."
