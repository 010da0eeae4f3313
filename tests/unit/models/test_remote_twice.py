"""A reply that is sent twice on one connection is not the answer to the next request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foundry_pipeline.models.generate import read_replies
from foundry_pipeline.models.remote import remote_ref
from foundry_pipeline.models.requests import ModelRef
from tests.servers.asking import MODEL, ask_for, claude, run, said, spec_for
from tests.servers.running import KEY, running


@pytest.mark.parametrize(("kind", "model"), [("claude", claude()), ("openai", remote_ref("openai", MODEL))])
def test_a_reply_sent_twice_is_no_answer_to_the_next_request(tmp_path: Path, kind: str, model: ModelRef) -> None:
    texts = {}
    faults: dict[str, Any] = {"calm": {}, "twice": {"faults": {"twice": 1.0}}}
    for name, script in faults.items():
        spec = spec_for(tmp_path / name, model, ask_for(24))
        with running(kind, tmp_path / f"server-{name}", key=KEY, **script) as server:
            own = {} if kind == "claude" else {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url}
            assert run(spec, server if kind == "claude" else None, **own) == 0, said(spec)
            assert all(e["fault"] == ("" if name == "calm" else "twice") for e in server.events("answered"))
        texts[name] = [r.text for r in read_replies(Path(spec["work"]) / "result")]
    assert len(set(texts["calm"])) == 24
    assert texts["twice"] == texts["calm"]
