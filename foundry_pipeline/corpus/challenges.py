"""Pages that a server sends to programs instead of the document: firewall challenges and captchas.

    >>> challenged(202, {"x-amzn-waf-action": "challenge"}, b"")
    "a firewall's challenge: 202 with an empty body"

What is known of them: Founders Online lies behind AWS WAF, which answers 202 with an empty body and `x-amzn-waf-action`
(`challenge`, or `captcha` with 405); Cloudflare marks its pages `cf-mitigated: challenge`; the others are told by what
their pages are made of, so that a text *about* captchas is still a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_MARKS = (
    b"awswafcookiedomainlist",
    b"awswafintegration",
    b"/_incapsula_resource",
    b"captcha-delivery.com",
    b"cf-chl-",
    b"cf_chl_opt",
    b"/cdn-cgi/challenge-platform",
    b"px-captcha",
    b"distil_r_captcha",
)
_FORMS = (b"g-recaptcha", b"h-captcha", b"captcha-form", b'name="captcha', b"cf-turnstile", b'id="captcha')
_TITLE = re.compile(
    rb"<title[^>]*>[^<]{0,200}(captcha|just a moment|are you (a )?human|access denied|robot check)", re.I
)
_TAGS = re.compile(rb"<(script|style)\b.*?(</\1\s*>|\Z)|<[^>]*>", re.I | re.S)
FEW_WORDS = 250  # a page with a captcha form and no more words than this is the captcha, not a page that has one


def challenged(status: int, headers: Mapping[str, str], head: bytes) -> str:
    """What shows that this answer is a check for people; empty for any other answer. `head` is its first 64 kB."""
    action = headers.get("x-amzn-waf-action", "").strip().lower()
    if status == 202 and not head.strip():
        return "a firewall's challenge: 202 with an empty body"
    if action:
        return f"a firewall's {action}"
    if headers.get("cf-mitigated", "").strip().lower() == "challenge":
        return "a firewall's challenge"
    if not _is_page(headers, head):
        return ""
    low = head.lower()
    if any(mark in low for mark in _MARKS):
        return "a captcha or challenge page"
    # A page longer than what was looked at is no captcha.
    few = len(_TAGS.sub(b" ", head).split()) <= FEW_WORDS
    if few and (any(form in low for form in _FORMS) or _TITLE.search(head)):
        return "a captcha page"
    return ""


def page_where_data_was_asked(headers: Mapping[str, str], head: bytes) -> bool:
    """Whether HTML has come, by its beginning or, where that is unclear, by what the server calls it."""
    return _is_page(headers, head)


def _is_page(headers: Mapping[str, str], head: bytes) -> bool:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return True
    return "html" in headers.get("content-type", "").lower() and start.startswith(b"<")
