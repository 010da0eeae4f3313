"""Text of unknown origin inside Markdown, as the Dagster UI and a hub render it: shown as it is read, never obeyed.

    cell("<img src=x> ![a](http://x.org/p.png) | 2")
    → "&lt;img src=x&gt; \!\[a\]\(http&#58;//x.org/p.png\) \| 2"

A picture in a preview would be loaded from wherever it says, and tell who looks at what; a link may run a script; a bar
would end the cell. So every mark that Markdown or HTML reads is escaped, and addresses are not made links.
"""

from __future__ import annotations

import re

from foundry_pipeline.plain import plain

_MARKS = re.compile(r"([\\`*_{}\[\]()#+!|~^$-])")


def cell(value: object, limit: int = 160) -> str:
    """A value as one cell of a table: one line, at most `limit` characters of it, nothing in it with a meaning."""
    # Cut before `plain`, so that a text of ten megabytes costs no more than what is shown of it.
    text = " ".join(plain(str(value)[: 8 * limit].replace("\n", " ").replace("\r", " ")).split())
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    text = _MARKS.sub(r"\\\1", text)
    # Numbered references come after the marks, since `#` is one of them; the first `&` is the text's own.
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("://", "&#58;//").replace("www.", "www&#46;").replace("@", "&#64;")
