"""Checkpoints count only when every byte of them is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundry_pipeline.training.checkpoints import MARKER, fault, last_usable, seal

MARK = "f" * 64


def write(root: Path, step: int, mark: str = MARK) -> Path:
    written = root / ".partial" / f"checkpoint-{step}"
    (written / "deep").mkdir(parents=True)
    (written / "optimizer.pt").write_bytes(bytes(range(256)) * step)
    (written / "deep" / "rng.pth").write_bytes(b"rng")
    return seal(written, root, step, mark, seconds=step * 1.5)


def test_the_last_one_is_used_and_two_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 10):
        write(tmp_path, step)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-10", "step-4"]
    last = last_usable(tmp_path, MARK, print)
    assert last is not None
    assert (last.step, last.seconds, last.folder) == (10, 15.0, tmp_path / "step-10")


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("optimizer.pt", "cut", "optimizer.pt is damaged"),
        ("optimizer.pt", "flip", "optimizer.pt is damaged"),
        ("deep/rng.pth", "remove", "deep/rng.pth is missing"),
        (MARKER, "remove", "it was never finished"),
        (MARKER, "cut", f"its {MARKER} is damaged"),
    ],
)
def test_a_torn_one_is_skipped_by_name(tmp_path: Path, name: str, damage: str, reason: str) -> None:
    write(tmp_path, 4)
    torn = write(tmp_path, 6) / name
    content = torn.read_bytes()
    if damage == "remove":
        torn.unlink()
    else:
        torn.write_bytes(content[:-20] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])
    said: list[str] = []
    last = last_usable(tmp_path, MARK, said.append)
    assert last is not None
    assert last.step == 4
    assert said == [f"checkpoint step-6 is skipped: {reason}"]


def test_one_of_another_training_is_not_resumed(tmp_path: Path) -> None:
    folder = write(tmp_path, 4, mark="0" * 64)
    assert fault(folder, MARK) == "it belongs to another training"
    assert last_usable(tmp_path, MARK, lambda _: None) is None


def test_what_was_not_renamed_does_not_count(tmp_path: Path) -> None:
    (tmp_path / ".partial" / "checkpoint-8").mkdir(parents=True)
    assert last_usable(tmp_path, MARK, print) is None
