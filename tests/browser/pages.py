"""What the tests of pages share: Chromium, the sizes looked at, and a page that remembers what it said and asked for.

made = Watched(browser, DESK)
made.page.goto(path.as_uri())
assert made.said == []                     # console and errors
made.asked                                 # every address that was requested
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE, DESK = (390, 844), (1280, 900)
MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM}; install it to run the browser tests"),
]
# Pieces of text whose contrast with their ground is below 4.5 to 1.
FAINT = """() => {
  const rgb = s => { const m = s.match(/[\\d.]+/g).map(Number); return m.length > 3 && m[3] === 0 ? null : m; };
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
  const ground = e => { for (let n = e; n; n = n.parentElement) { const c = rgb(getComputedStyle(n).backgroundColor); if (c) return c; } return [255, 255, 255]; };
  const out = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || e.tagName === 'title') continue;
    const style = getComputedStyle(e);
    const ink = rgb(e.namespaceURI.endsWith('svg') ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) out.push(ratio.toFixed(2) + ' ' + e.className + ' ' + e.textContent.trim().slice(0, 40));
  }
  return [...new Set(out)].slice(0, 10);
}"""


# Text of plots that is cut off at the edge of its sheet, or printed over other text.
OVERPRINTED = """() => [...document.querySelectorAll('figure > svg')].flatMap(svg => {
          const sheet = svg.getBoundingClientRect();
          const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
          const out = boxes.filter(([, b]) => b.left < sheet.left - 3 || b.right > sheet.right + 3 || b.bottom > sheet.bottom + 3)
            .map(([t]) => 'cut off: ' + t);
          for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
            const [a, b] = [boxes[i][1], boxes[j][1]];
            const w = Math.min(a.right, b.right) - Math.max(a.left, b.left);
            const h = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
            // A line of text is a third taller than its figures: boxes may touch by that much.
            if (w > 1 && h > 0.4 * Math.min(a.height, b.height)) out.push('overprinted: ' + boxes[i][0] + ' / ' + boxes[j][0]);
          }
          return out;
        })"""
# Elements that reach past the window and lie in nothing that scrolls.
PAST = """() => [...document.querySelectorAll('main *, header *')].filter(e => !e.closest('.scroll, svg')
              && e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""


class Watched:
    """An empty page of a browser, with everything that it will say and ask for."""

    def __init__(self, browser: Browser, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)  # type: ignore[arg-type]
        self.page: Page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"pageerror: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))


class Opened(Watched):
    """A page opened from disk."""

    def __init__(self, browser: Browser, path: Path, size: tuple[int, int], scheme: str = "light") -> None:
        super().__init__(browser, size, scheme)
        self.page.goto(path.as_uri(), wait_until="networkidle")
