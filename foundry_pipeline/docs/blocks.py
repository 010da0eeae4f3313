"""Docs blocks: Markdown between `{% docs name %}` and `{% enddocs %}`, referred to by asset and column descriptions.

>>> parse_blocks("{% docs pair_id %}\\nHash of the pair.\\n{% enddocs %}")
{'pair_id': 'Hash of the pair.'}
"""

from __future__ import annotations

import re
from pathlib import Path

from foundry_pipeline.errors import DeclarationError

_BLOCK = re.compile(r"\{%\s*docs\s+(\w+)\s*%\}(.*?)\{%\s*enddocs\s*%\}", re.DOTALL)
_TAG = re.compile(r"\{%\s*(docs\b[^%]*|enddocs)\s*%\}")


def parse_blocks(text: str, *, where: str = "") -> dict[str, str]:
    """Name → Markdown. Raises DeclarationError on an unclosed, empty or repeated block."""
    found: dict[str, str] = {}
    for name, body in _BLOCK.findall(text):
        if name in found or not body.strip():
            fault = "is written twice" if name in found else "is empty"
            raise DeclarationError(f"the docs block `{name}` {fault}", where=where, mend="correct the file")
        found[name] = " ".join(body.split()) if "\n\n" not in body.strip() else body.strip()
    if len(_TAG.findall(text)) != 2 * len(found):
        raise DeclarationError("a docs block is not closed, or closed twice", where=where, mend="correct the file")
    return found


def load_blocks(root: Path, name: str) -> dict[str, str]:
    """Blocks of `dbt_style_docs/<name>.md`."""
    path = root / "dbt_style_docs" / f"{name}.md"
    try:
        return parse_blocks(path.read_text(encoding="utf-8"), where=str(path))
    except FileNotFoundError as error:
        raise DeclarationError("docs blocks are missing", where=str(path), mend=f"write {path}") from error
