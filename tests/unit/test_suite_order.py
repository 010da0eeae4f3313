"""The list of long files that the suite begins with names files that are there."""

from __future__ import annotations

from tests.conftest import LONGEST, ROOT


def test_every_long_file_is_there_and_named_once() -> None:
    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []
    assert len(set(LONGEST)) == len(LONGEST)
