"""Checkpoints that are whole or do not count.

    checkpoints/step-40/COMPLETE.json   {"step": 40, "files": {"optimizer.pt": {"bytes": …, "sha256": …}, …}, …}

A checkpoint is written under another name, sealed with the hashes of its files and renamed. Whatever tears it
later (a disk, a copy, a hand) shows in a hash, and the one before it is used. Two are kept for that reason.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry_pipeline.launch import replace_folder, sync_tree, write_json

MARKER = "COMPLETE.json"
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint; `seconds` of training lead up to it, over all attempts."""

    folder: Path
    step: int
    seconds: float


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(written: Path, root: Path, step: int, fingerprint: str, seconds: float) -> Path:
    """Turn the folder `written` into `root/step-N`, and delete all but the last KEPT. Returns the new folder."""
    files = {
        path.relative_to(written).as_posix(): {"bytes": path.stat().st_size, "sha256": _hash_file(path)}
        for path in sorted(written.rglob("*"))
        if path.is_file()
    }
    write_json(written / MARKER, {"step": step, "fingerprint": fingerprint, "seconds": seconds, "files": files})
    sync_tree(written)
    target = root / f"step-{step}"
    replace_folder(written, target)
    for old in sorted(_steps(root), key=_step_of)[:-KEPT]:
        shutil.rmtree(old)
    return target


def fault(folder: Path, fingerprint: str) -> str | None:
    """Why this checkpoint cannot be resumed from, or None when it can."""
    try:
        marker: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "it was never finished"
    except (json.JSONDecodeError, UnicodeDecodeError):
        return f"its {MARKER} is damaged"
    if marker.get("fingerprint") != fingerprint:
        return "it belongs to another training"
    for name, expected in marker["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"] or _hash_file(path) != expected["sha256"]:
            return f"{name} is damaged"
    return None


def last_usable(root: Path, fingerprint: str, say: Callable[[str], None]) -> Checkpoint | None:
    """The checkpoint with the most steps that is whole and of this very training; others are named and deleted."""
    for folder in sorted(_steps(root), key=_step_of, reverse=True):
        if reason := fault(folder, fingerprint):
            say(f"checkpoint {folder.name} is skipped: {reason}")
            shutil.rmtree(folder)
            continue
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return Checkpoint(folder, marker["step"], marker["seconds"])
    return None


def _steps(root: Path) -> list[Path]:
    return [path for path in root.glob("step-*") if path.is_dir() and path.name[5:].isdigit()]


def _step_of(folder: Path) -> int:
    return int(folder.name[5:])
