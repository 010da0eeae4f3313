"""Files of any kind to text: one reader a format, chosen by what the bytes are, then by what they are called.

    >>> read_format(b"%PDF-1.7 …", name="notes.txt")[0].kind       # what it is, not what it is called
    'pdf'

Plain text, Markdown, HTML, PDF, EPUB, and a zip archive of these. Everything else is refused by name: a Word file read as
text would be noise in every passage. A format only reads; what should be changed in its text is `cleaning.py`'s business.
"""

from foundry_pipeline.corpus.formats.document import FormatDocument, counted, invisible, iso_date
from foundry_pipeline.corpus.formats.reading import kind_of, read_format

MODULES: tuple[str, ...] = tuple(
    f"foundry_pipeline.corpus.formats.{name}"
    for name in ("archives", "decoding", "document", "epub", "html", "markdown", "pdf", "plain", "reading")
)

__all__ = ["MODULES", "FormatDocument", "counted", "invisible", "iso_date", "kind_of", "read_format"]
