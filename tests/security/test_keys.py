"""Where keys are read from, and what is left of them in what is shown."""

from __future__ import annotations

import os
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.keys import KeyRefused, redact, secret, without_keys
from foundry_pipeline.lineage.ledger_database import shown
from foundry_pipeline.models.remote.service import service_of
from foundry_pipeline.models.requests import ModelRef

KEY = "plain-secret-1234"


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY_FILE", "OPENAI_API_KEY", "OPENAI_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def key_file(tmp_path, monkeypatch):
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    path.chmod(0o600)
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(path))
    return path


def claude() -> ModelRef:
    return ModelRef("anthropic", "claude-sonnet-5-5", "0" * 64, None, None, "Claude", {})


def test_a_key_from_a_file_of_one_s_own(key_file):
    assert secret("ANTHROPIC_API_KEY") == KEY
    assert service_of(claude()).key == KEY
    assert KEY not in repr(service_of(claude()))
    assert redact(f"bad key {KEY}") == "bad key [key removed]"


def test_the_environment_goes_before_the_file(key_file, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "another-secret-5678")
    assert secret("ANTHROPIC_API_KEY") == "another-secret-5678"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o777])
def test_a_file_that_others_may_use_is_refused(key_file, mode):
    key_file.chmod(mode)
    with pytest.raises(FoundryError, match=f"its mode is {mode:04o}") as found:
        service_of(claude())
    assert "chmod 600" in found.value.mend
    assert KEY not in str(found.value)


def test_a_link_is_judged_by_what_it_leads_to(key_file, tmp_path, monkeypatch):
    link = tmp_path / "link"
    link.symlink_to(key_file)
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(link))
    assert secret("ANTHROPIC_API_KEY") == KEY
    key_file.chmod(0o644)
    with pytest.raises(KeyRefused):
        secret("ANTHROPIC_API_KEY")


def test_what_is_no_file_is_refused_at_once(key_file, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, said in (("pipe", "small plain file"), ("nothing", "cannot be read"), (".", "")):
        monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(tmp_path / name))
        with pytest.raises(KeyRefused, match=said):
            secret("ANTHROPIC_API_KEY")
    monkeypatch.delenv("ANTHROPIC_API_KEY_FILE")
    with pytest.raises(FoundryError, match="no ANTHROPIC_API_KEY and no ANTHROPIC_API_KEY_FILE"):
        service_of(claude())


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgresql://me:hunter22@host/db", "postgresql://me:[removed]@host/db"),
        ("postgresql+psycopg2://me:p@ss@host/db", "postgresql+psycopg2://me:[removed]@host/db"),
        ("https://:token@host/x?y=1", "https://:[removed]@host/x?y=1"),
        ("s3://key:secret@bucket", "s3://key:[removed]@bucket"),
        ("postgresql://host/db?user=me&password=hunter22&x=1", "postgresql://host/db?user=me&password=[removed]&x=1"),
        ("see https://example.org:8080/a@b and mail me@example.org", None),
        ("the ratio 3:4@5 and sk-short", None),
    ],
)
def test_passwords_of_urls(text, left):
    assert redact(text) == (text if left is None else left)
    assert str(FoundryError(text, where=text, mend=text)).count(left or text) == 3


def test_a_password_is_known_without_its_url(monkeypatch):
    monkeypatch.setenv("FOUNDRY_LEDGER_URL", f"postgresql://me:{quote('päss/word 1', safe='')}@host/db")
    assert redact("FATAL: no entry for päss/word 1") == "FATAL: no entry for [key removed]"
    assert "p%C3%A4ss" not in redact("dsn: p%C3%A4ss%2Fword%201")
    assert shown("postgresql://me:hunter22@host/db?password=hunter33&sslmode=require") == (
        "postgresql://me:***@host/db?sslmode=require"
    )


def test_an_answer_keeps_its_addresses():
    """What a model says is data: only keys are taken out of it."""
    text = "Write postgresql://me:hunter22@host/db?password=x, and sk-ant-" + "a" * 40
    assert without_keys(text) == "Write postgresql://me:hunter22@host/db?password=x, and [key removed]"


@given(st.text(alphabet="abc:/@?&=sk-\x00é ", max_size=400))
def test_what_is_removed_stays_removed(text):
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "piece", ["x://" + ":" * 700, "a" * 50, "x://" + "a:" * 300, "?token=", "sk-" + "a" * 15 + " ", "://", "@:"]
)
def test_a_hostile_text_costs_little(piece):
    started = time.process_time()
    redact(piece * (1_000_000 // len(piece)))
    assert time.process_time() - started < 20
