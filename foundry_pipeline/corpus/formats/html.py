"""HTML and XHTML: the text that a reader of the page sees, one paragraph a block.

    >>> read_html(b"<title>To a friend</title><nav>Home</nav><p>Dear <i>Sir</i>,<script>x()</script></p>", where="a.html")
    FormatDocument(text='Dear Sir,', kind='html', title='To a friend', …)

Left out, and counted: scripts and styles, navigation (`nav`, ARIA landmarks, well-known class names, lists and tables
that are nearly all links), a page's header, footer and asides, forms, hidden elements, images, page numbers of an
edition. If the page has one `main` or one `article` that holds most of it, the text is that element's. Nothing is dropped
for being short or unlike the rest: readers that judge a page by statistics lose paragraphs of letters that way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from foundry_pipeline.corpus.formats.decoding import decode
from foundry_pipeline.corpus.formats.document import FormatDocument, counted, iso_date, paragraphs
from foundry_pipeline.errors import FoundryError

if TYPE_CHECKING:
    from lxml.html import HtmlElement


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


LARGEST = 64 << 20  # bytes of one page: its tree takes some ten times as much

_BLOCKS = _set(
    "address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure footer "
    "form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main ol p pre section summary table tbody tfoot thead tr ul"
)
_SILENT = _set("head script style noscript template iframe object embed svg canvas audio video map")
_NAVIGATION = _set("nav form button select input textarea menu")
_FURNITURE = _set("header footer aside")
_ROLES = _set("navigation banner contentinfo search menu menubar complementary dialog alert toolbar")
_NAMES = _set(
    "nav navbar navigation navbox menu breadcrumb breadcrumbs sidebar toc site-header site-footer skip-link skip-nav "
    "pagination share social cookie-banner cookie-notice mw-editsection noprint"
)
_PAGE_NUMBERS = _set("pagenum pagenumber page-number pageno pb")
_UNSEEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d])", re.I)
_CHARSET = re.compile(
    rb"<meta[^>]{0,300}charset\s*=\s*[\"']?\s*([\w.:-]+)|<\?xml[^>]{0,200}encoding\s*=\s*[\"']([\w.:-]+)", re.I
)
_SPACE = re.compile(r"[ \t\r\n\f]+")
_TITLES = ("og:title", "citation_title", "dc.title", "dcterms.title")
_AUTHORS = ("citation_author", "dc.creator", "dcterms.creator", "author")
_DATES = (
    "citation_publication_date",
    "dc.date",
    "dc.date.issued",
    "dcterms.date",
    "dcterms.issued",
    "article:published_time",
)


def read_html(data: bytes, *, where: str, encoding: str = "") -> FormatDocument:
    """The page's text, title, author and date. Raises FoundryError for a page that is too large, or holds no text."""
    if len(data) > LARGEST:
        raise FoundryError(
            f"the page has {len(data):,} bytes, more than {LARGEST:,}",
            where=where,
            mend="divide it, or save it as text",
        )
    declared = encoding or _declared(data)
    text, read_as = decode(data, where=where, declared=declared)
    root = parse(text, where=where)
    metas = _metas(root)
    counts: Counter[str] = Counter()
    body = _body(root, counts)
    written = "" if body is None else text_of(body, counts)
    if not written:
        raise FoundryError("the page holds no text", where=where, mend="look at it in a browser; save the text itself")
    return FormatDocument(
        text=written,
        kind="html",
        title=_first(metas, _TITLES) or _inline(root.find(".//title")) or _inline(root.find(".//h1")),
        author=_first(metas, _AUTHORS),
        date=next((d for d in (iso_date(metas.get(name, "")) for name in _DATES) if d), ""),
        encoding=read_as,
        counts=counted(written, counts),
    )


def parse(text: str, *, where: str) -> HtmlElement:
    """The tree of a page; nothing is fetched and no entity but HTML's own is known."""
    from lxml import etree
    from lxml.html import HTMLParser, document_fromstring

    # As bytes, since lxml refuses text that itself names an encoding. A zero byte would end the page there.
    parser = HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        root = document_fromstring(text.replace("\0", "\ufffd").encode("utf-8", "replace"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, AssertionError) as error:
        raise FoundryError(f"the page cannot be read as HTML ({error})", where=where, mend="get it again") from error
    fatal = [entry.message for entry in parser.error_log if entry.level >= etree.ErrorLevels.FATAL]
    if fatal:
        raise FoundryError(f"the page is cut short or hostile ({fatal[0]})", where=where, mend="get it again")
    return root


def text_of(root: HtmlElement, counts: Counter[str]) -> str:
    """The text below an element, blocks as paragraphs; what is left out is added to `counts` by name."""
    from lxml import etree

    blocks: list[str] = []
    run: list[str] = []
    kept = 0  # depth inside <pre>, where white space counts

    def close() -> None:
        joined = "".join(run)
        run.clear()
        # U+2028 stands for a line break while white space is evened out: it is no HTML white space.
        lines = [_SPACE.sub(" ", line).strip() for line in joined.split("\u2028")]
        blocks.append("\n".join(lines).strip("\n"))

    walk = etree.iterwalk(root, events=("start", "end"))
    for event, element in walk:
        tag = element.tag if isinstance(element.tag, str) else ""
        if event == "start":
            reason = "" if element is root else _left_out(element, tag, root)
            if reason:
                counts[reason] += reason != "silent"
                walk.skip_subtree()
                continue
            if tag in _BLOCKS:
                close()
            elif tag == "br":
                run.append("\u2028")
            elif tag in ("td", "th"):
                run.append(" ")
            elif tag == "img":
                counts["images"] += 1
            kept += tag == "pre"
            run.append(_written(element.text, kept))
        else:
            kept -= tag == "pre" and not _left_out(element, tag, root)
            if tag in _BLOCKS:
                close()
            if element is not root:
                run.append(_written(element.tail, kept))
    close()
    return paragraphs(blocks)


def _written(text: str | None, kept: int) -> str:
    text = (text or "").replace("\u2028", "\n")
    return text.replace("\r\n", "\n").replace("\n", "\u2028") if kept else text


def _left_out(element: HtmlElement, tag: str, root: HtmlElement) -> str:
    """Why an element is not part of the text; "" if it is."""
    if tag in _SILENT or not tag:
        return "silent"
    if tag in _NAVIGATION or element.get("role", "").lower() in _ROLES:
        return "navigation"
    # A header inside an article is the article's own; one of the page is not.
    if tag in _FURNITURE and not any(a.tag in ("article", "main", "section") for a in _ancestors(element, root)):
        return "navigation"
    if _unseen(element):
        return "hidden elements"
    names = set((element.get("class", "") + " " + element.get("id", "")).lower().split())
    if names & _PAGE_NUMBERS:
        return "page numbers"
    if names & _NAMES or (tag in ("ul", "ol", "table", "dl") and _all_links(element)):
        return "navigation"
    return ""


def _unseen(element: HtmlElement) -> bool:
    hidden = element.get("hidden") is not None or element.get("aria-hidden", "").lower() == "true"
    return hidden or _UNSEEN.search(element.get("style", "")) is not None


def _ancestors(element: HtmlElement, root: HtmlElement) -> Iterator[Any]:
    yield from element.iterancestors()
    yield root


def _all_links(element: HtmlElement) -> bool:
    """A list or table of three links or more with hardly a word outside them: contents, a menu, an index."""
    links = sum(1 for _ in element.iter("a"))
    if links < 3:
        return False
    inside = sum(len("".join(a.itertext()).split()) for a in element.iter("a"))
    return inside >= 0.8 * len("".join(element.itertext()).split())


def _body(root: HtmlElement, counts: Counter[str]) -> HtmlElement | None:
    body = root.find("body")
    body = root if body is None else body
    for found in (body.xpath(".//main | .//*[@role='main']"), body.xpath(".//article")):
        if len(found) == 1:
            inside, whole = _size(found[0]), _size(body)
            if inside >= 0.5 * whole:
                counts["words outside the main part"] += whole - inside
                return found[0]
    return body


def _size(element: HtmlElement) -> int:
    return len(text_of(element, Counter()).split())


def _metas(root: HtmlElement) -> dict[str, str]:
    found: dict[str, str] = {}
    for meta in root.iter("meta"):
        name = (meta.get("name") or meta.get("property") or "").lower()
        if name and meta.get("content", "").strip():
            found.setdefault(name, " ".join(meta.get("content").split()))
    return found


def _first(metas: dict[str, str], names: tuple[str, ...]) -> str:
    return next((metas[name] for name in names if name in metas), "")


def _inline(element: HtmlElement | None) -> str:
    return "" if element is None else " ".join("".join(element.itertext()).split())


def _declared(data: bytes) -> str:
    """The encoding that a page names in its first bytes."""
    match = _CHARSET.search(data[:4096])
    return next((g.decode("ascii", "replace") for g in match.groups() if g), "") if match else ""
