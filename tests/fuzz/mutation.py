"""Inputs: a sample of the right kind with a few things wrong, or no sense at all.

A sample is cut, doubled, spliced with another, bits of it flipped, numbers replaced by the largest there are, and marks of its
format strewn in; so most of a parser is reached, and hypothesis shrinks what it finds.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"9" * 25, b"4294967295", b"18446744073709551615", b"9" * 5000)
MARKS = (
    *(
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        "\u202e\u200b\u0085\u2028".encode(),
        "\U0001f600".encode(),
        b"\r\n",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"'",
        b"\\",
        b"\\ud800",
        b":",
        b",",
        b"<",
        b">",
        b"</",
        b"<!--",
        b"&#0;",
        b"&amp;" * 3,
        b"<script>",
    ),
    *(
        b"---\n",
        b"&a ",
        b"*a",
        b"!!int ",
        b"!!timestamp x",
        b"<<: ",
        b"? ",
        b"%",
        b"(",
        b")",
        b"obj",
        b"stream\n",
        b"/Kids ",
        b" 0 R",
    ),
)
_INTS = tuple(n.to_bytes(8, "little") for n in (0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1))


@st.composite
def mutated(draw: st.DrawFn, samples: Sequence[bytes], marks: Sequence[bytes] = ()) -> bytes:
    """A sample with one to six changes."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data))))
        kind = draw(st.integers(0, 9))
        if kind == 0:
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
        elif kind == 3:
            data[at:at] = draw(st.sampled_from((*MARKS, *marks)))
        elif kind == 4:
            data[at:at] = draw(st.sampled_from(NUMBERS))
        elif kind == 5:
            other = draw(st.sampled_from(samples))
            start = draw(st.integers(0, len(other)))
            data[at : at + draw(st.integers(0, 32))] = other[start : start + draw(st.integers(1, 400))]
        elif kind == 6:
            piece = bytes(data[at : at + draw(st.integers(1, 40))])
            data[at:at] = piece * draw(st.sampled_from((2, 30, 400)))
        elif kind == 7:
            width = draw(st.sampled_from((1, 2, 4, 8)))
            data[at : at + width] = draw(st.sampled_from(_INTS))[:width]
        elif kind == 8:
            mark = draw(st.sampled_from((*MARKS, *marks)))
            data[at:at] = mark * draw(st.sampled_from((60, 900, 990, 5000)))
        elif data:
            place = at % len(data)
            data[place] ^= 1 << draw(st.integers(0, 7))
    return bytes(data[: 1 << 20])


def inputs(samples: Sequence[bytes], marks: Sequence[bytes] = ()) -> st.SearchStrategy[bytes]:
    """Mostly samples that were changed; now and then bytes or text of no kind."""
    changed = mutated(samples, marks)
    return st.one_of(
        changed,
        changed,
        changed,
        changed,
        st.binary(max_size=300),
        st.text(max_size=300).map(lambda t: t.encode("utf-8", "surrogatepass")),
    )
