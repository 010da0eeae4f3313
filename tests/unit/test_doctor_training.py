"""What `foundry doctor` says of a profile's needs, and `foundry join-training` of nodes that are not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.cli.doctor_training import findings
from foundry_pipeline.cli.join_training import join_training
from foundry_pipeline.declarations.compute import Compute
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def told(tmp_path: Path, profile: str, **compute: Any) -> dict[str, dict[str, Any]]:
    settings = Settings(ROOT, tmp_path, profile)
    d, chain = load_chain(settings)
    if compute:
        d.profile.__dict__["compute"] = Compute.model_validate(compute)
    return {f["what"]: f for f in findings(d, chain, settings)}


def test_the_laptop_needs_nothing_beyond_its_processor(tmp_path: Path) -> None:
    found = told(tmp_path, "laptop")
    assert set(found) == {"trains on"}
    assert found["trains on"]["ok"]


def test_the_full_profile_is_told_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    found = told(tmp_path, "full")
    if not torch.cuda.is_available():
        assert not found["GPUs"]["ok"]
        assert "1 on this node declared, 0 seen" in found["GPUs"]["found"]
        assert found["GPUs"]["mend"]
        assert "4 on this node declared, 0 seen" in told(tmp_path, "full", processes=4, device="cuda")["GPUs"]["found"]
        assert told(tmp_path, "full", device="cpu")["trains on"]["ok"]
    assert "Qwen/Qwen3-32B (66 GB)" in found["weights"]["found"]
    for who in ("teacher", "judge"):
        assert not found[who]["ok"]
        assert found[who]["mend"] == "export ANTHROPIC_API_KEY=…"
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-planted-and-not-to-be-shown")
    found = told(tmp_path, "full")
    assert found["teacher"]["ok"]
    assert "sk-planted" not in repr(found)
    assert "optimizer adamw_8bit and weights nf4" in told(tmp_path, "full", weights="nf4")["bitsandbytes"]["found"]


def test_a_node_that_is_not_declared_cannot_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOUNDRY_ROOT", str(ROOT))
    monkeypatch.setenv("FOUNDRY_STORE", str(tmp_path))
    with pytest.raises(FoundryError, match=r"trains on 1 node\(s\); there is none of rank 1") as raised:
        join_training("madison_r2", node=1, wait=0)
    assert "compute" in raised.value.mend
    with pytest.raises(FoundryError, match="cannot be trained yet"):
        join_training("madison_r2", node=0, wait=0)
    with pytest.raises(FoundryError):
        join_training("nobody", node=1, wait=0)
