"""Plain measures of a text: words, sentences, repetition, register. No model, no randomness, no state.

    >>> words("It’s 1,809 — the States' CAUSE")
    ["it's", '1,809', 'the', 'states', 'cause']
    >>> contractions("It’s plain that we don't hold Congress's view.")
    2
    >>> round(repetition("the same words again " * 5, n=4), 2)
    0.76
    >>> longest_common_run("a b c d".split(), "x b c d y".split())
    3

Every measure reads a text through the same normal form (`normalise`), so that a curly apostrophe, a decomposed accent
or a full-width letter never changes a count. All functions take any string, the empty one included, and raise nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

# Apostrophe look-alikes become U+0027 before NFKC, which would tear U+00B4 apart; soft hyphens and zero-width signs go.
_CHARACTERS = str.maketrans(dict.fromkeys("’‘ʼ´`′＇", "'") | dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff", ""))
_WORD = re.compile(r"\d+(?:[.,]\d+)+|(?:[^\W_][\u0300-\u036f]*)+(?:'(?:[^\W_][\u0300-\u036f]*)+)*")


def normalise(text: str) -> str:
    """NFKC with straight apostrophes and without invisible signs; letters keep their case."""
    if text.isascii():
        return text.replace("`", "'")
    return unicodedata.normalize("NFKC", text.translate(_CHARACTERS))


def _folded(text: str) -> str:
    plain = normalise(text)
    return plain.lower() if plain.isascii() else unicodedata.normalize("NFKC", plain.casefold())


def words(text: str) -> list[str]:
    """Words in order: NFKC, lower case, inner apostrophes kept (`don't`), figures whole (`21,648`), hyphens split."""
    return _WORD.findall(_folded(text))


# -- sentences ---------------------------------------------------------------------------------------------------------

SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?=\s|$)|\n\s*\n")
_ABBREVIATIONS = frozenset(
    ("mr", "mrs", "messrs", "dr", "st", "gen", "col", "capt", "lt", "maj", "gov", "hon", "rev", "jr", "sr")
    + ("vol", "vols", "pp", "viz", "cf", "art", "sec", "sect", "ch", "dept", "e.g", "i.e")
    + ("jan", "feb", "mar", "apr", "jun", "jul", "aug", "sept", "sep", "oct", "nov", "dec")
)


def is_break(text: str, start: int, mark: re.Match[str]) -> bool:
    """Whether the punctuation `mark` ends the sentence that began at `start`."""
    if mark.group().isspace():
        return True
    following = text[mark.end() :].lstrip()[:1]
    if following.islower() or following == "&":  # "&c. in the", "What! shall we": the sentence goes on
        return False
    if not mark.group().startswith(".") or mark.group().startswith(".."):
        return True
    before = text[start : mark.start()].rsplit(None, 1)[-1:] or [""]
    token = before[0].lstrip("\"'“‘([").lower()
    if token in _ABBREVIATIONS or (token in {"no", "nos", "p"} and following.isdigit()):
        return False
    if re.fullmatch(r"(?:[^\W\d_]\.)*[^\W\d_]", token) and token != "i":  # initials: "J. Madison", "U.S."
        return False
    return not (token.isdigit() and text[start : mark.start()].strip() == token)  # "1." of a numbered list


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Character spans [start, end) of the sentences of `text`; every character that is not white space is in one.

    A sentence ends at `.`, `!`, `?` or `…` before white space and no small letter, except after an abbreviation or an
    initial, and at an empty line.
    """
    spans, start = [], 0
    for mark in SENTENCE_END.finditer(text):
        if mark.start() >= start and is_break(text, start, mark):
            spans.append((start, mark.end()))
            start = mark.end()
    spans.append((start, len(text)))
    out = []
    for first, last in spans:
        piece = text[first:last]
        if body := piece.strip():
            begin = first + len(piece) - len(piece.lstrip())
            out.append((begin, begin + len(body)))
    return out


def sentences(text: str) -> list[str]:
    """The sentences of a text, verbatim, without surrounding white space."""
    return [text[a:b] for a, b in sentence_spans(text)]


# -- phrases -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _phrase_index(phrases: tuple[str, ...]) -> dict[str, list[tuple[str, ...]]]:
    index: dict[str, list[tuple[str, ...]]] = {}
    for phrase in {tuple(words(p)) for p in phrases} - {()}:
        index.setdefault(phrase[0], []).append(phrase)
    for found in index.values():
        found.sort(key=lambda p: (-len(p), p))
    return index


def _find_phrases(tokens: Sequence[str], phrases: tuple[str, ...]) -> list[str]:
    """Phrases that occur in `tokens`, in order, each as often as it occurs; longest first, none overlapping."""
    index, found, at = _phrase_index(phrases), [], 0
    while at < len(tokens):
        step = 1
        for phrase in index.get(tokens[at], ()):
            if len(phrase) == 1 or tuple(tokens[at : at + len(phrase)]) == phrase:
                found.append(" ".join(phrase))
                step = len(phrase)
                break
        at += step
    return found


def find_phrases(text: str, phrases: Iterable[str]) -> list[str]:
    """Which of `phrases` (whole words, any case, any Unicode form) occur in `text`; one entry for each occurrence."""
    return _find_phrases(words(text), tuple(phrases))


def _bare(text: str) -> str:
    return " ".join(w.removesuffix("'s") for w in words(text))


_bare_phrase = lru_cache(maxsize=8192)(_bare)


def mentioned(text: str, alternatives: Iterable[str]) -> Iterator[str]:
    """Those of `alternatives` that occur in `text` as whole words in a row, in their order, each once.

    Case, Unicode form and an inflectional apostrophe (`Madison's`, `States'`) make no difference on either side; part
    of a word is no match (`war` is not in `wary`).
    """
    joined = f" {_bare(text)} "
    return (a for a in alternatives if (phrase := _bare_phrase(a)) and f" {phrase} " in joined)


def contains_any(text: str, alternatives: Iterable[str]) -> bool:
    """Whether one of `alternatives` is `mentioned` in `text`."""
    return next(mentioned(text, alternatives), None) is not None


# -- register ----------------------------------------------------------------------------------------------------------

_STEMS_D = frozenset(("i", "you", "he", "she", "it", "we", "they", "who", "there", "that"))
_STEMS_S = _STEMS_D - {"i", "you", "we", "they"} | frozenset(
    ("what", "where", "when", "why", "how", "here", "let", "everyone", "everybody", "everything", "someone")
    + ("something", "nobody", "nothing")
)
# Contractions of the period are not modern ones.
_PERIOD = frozenset(("'tis", "tis", "'twas", "twas", "o'er", "e'en", "ne'er"))


def _is_contraction(word: str) -> bool:
    stem, apostrophe, ending = word.rpartition("'")
    if not apostrophe or word in _PERIOD:
        return word in {"gonna", "wanna", "gotta"}
    if ending in {"ve", "ll", "re", "m", "all"}:
        return ending != "all" or stem == "y"
    return (
        (ending == "t" and stem.endswith("n"))
        or (ending == "d" and stem in _STEMS_D)
        or (ending == "s" and stem in _STEMS_S)
    )


def contractions(text: str) -> int:
    """Modern contractions (don't, it's, I'm, we've, he'd, let's), with straight or curly apostrophes.

    Possessives (`Congress's`, `the people's`), elided participles of the period (`form'd`) and its own short forms
    (`'tis`, `o'er`) are none.
    """
    return sum(map(_is_contraction, words(text)))


_MARKDOWN = re.compile(
    r"(?=[ \t#*+•\d_|>`\[-])(?:"  # what any of them begins with; three times as fast as without
    r"^[ \t]{0,3}\#{1,6}[ \t]+\S"  # heading
    r"|^[ \t]*[-*+•][ \t]+\S"  # bullet
    r"|^[ \t]*\d{1,2}[.)][ \t]+\S"  # numbered item
    r"|^[ \t]*(?:-{3,}|\*{3,}|_{3,})[ \t]*$"  # rule
    r"|^[ \t]*\|.*\|[ \t]*$"  # table row
    r"|^>[ \t]+\S"  # quotation
    r"|```"  # fence
    r"|\*\*[^*\n]+\*\*|(?<!\w)__[^_\n]+__(?!\w)"  # strong
    r"|(?<![\w*])\*[^*\s][^*\n]*\*(?![\w*])"  # emphasis
    r"|(?<!`)`[^`\n]+`(?!`)"  # code
    r"|\[[^\]\n]+\]\([^)\s]+\)"  # link
    r")",
    re.MULTILINE,
)


def markdown_marks(text: str) -> int:
    """How many Markdown marks a text carries: headings, list items, rules, table rows, quotations, strong, links, …"""
    return sum(1 for _ in _MARKDOWN.finditer(text))


AI_SELF_REFERENCE = re.compile(
    r"\bas an? (?:ai|artificial intelligence|language model|digital|virtual|machine|chatbot|llm)\b(?: \w+){0,2}"
    r"|\b(?:i'm|i am)(?: just| only)? an? (?:\w+ ){0,3}(?:ai|artificial intelligence|language model|chatbot|"
    r"computer program|virtual assistant|digital assistant|machine learning model|llm)\b"
    r"|\b(?:large )?language model\b"
    r"|\bmy (?:training data|programming|programmers|developers|algorithms|knowledge cut-?off)\b"
    r"|\bi (?:was|am|have been) (?:trained on|programmed|designed to|fine-tuned)\b"
    r"|\bi (?:do not|don't|cannot|can't) (?:have|possess|hold|experience) (?:\w+ )?(?:personal |human |real )"
    r"(?:opinions?|feelings?|emotions?|beliefs?|experiences?|preferences?|memories|views?)\b"
    r"|\b(?:open ?ai|anthropic|chat ?gpt|hugging ?face|neural networks?)\b"
    r"|\b(?:ai|virtual|digital|helpful) assistants?\b"
)


def ai_self_reference(text: str) -> list[str]:
    """Phrases in which a text speaks as a machine, in order, folded to lower case."""
    return [m.group() for m in AI_SELF_REFERENCE.finditer(_folded(text))]


# None of these occurs in any message to Congress before 1860: what is listed is modern, not merely plain.
# The unit tests hold the list against the period's own texts.
_MODERN = """
okay; ok; yeah; yep; nope; guys; hey; wow; awesome; good question; absolutely not; that being said; having said that;
at the end of the day; when it comes to; on the same page; in today's world; in today's society; game changer; game
changing; key takeaway; key takeaways; takeaways; stakeholder; stakeholders; empower; empowering; empowerment;
mindset; lifestyle; lifestyles; scenario; scenarios; feedback; proactive; proactively; holistic; leveraging;
prioritize; prioritizing; prioritizes; impactful; teamwork; role model; role models; comfort zone; moving forward; win
win; it's important to; it is important to note; it's worth noting; it is worth noting; it's crucial; it is crucial;
crucial role; plays a key role; play a key role; plays a significant role; a wide range of; make a difference; making
an impact; have a significant impact; had a significant impact; a significant impact; had a profound impact; a
profound impact; a testament to; complex and multifaceted; multifaceted; nuanced; deep dive; let's dive; dive into;
delve into; navigate the complexities; tapestry; feel free to; happy to help; i'm here to help; i hope this helps; i'd
be happy to; let me know if; here are some; here are a few; here's a; here is a list; pros and cons; bottom line; big
picture; sure thing; no problem; my bad; kind of like; sort of like; a lot of; lots of; basically; critical thinking;
problem solving; decision making; open minded; mental health; social media; diverse backgrounds; diversity and
inclusion; inclusivity; inclusion; vibrant; underserved; marginalized; human rights violations; ongoing debate;
ongoing challenges; ultimately leading to; paved the way for; key factors; key figure; key points; key aspects; raise
awareness; positive change; social justice; equality for all; work together to; working together to; as human beings;
sense of community; resilience; resilient; sustainable; sustainability; innovative; innovation and; collaboration;
collaborate; collaborative; dynamic; dynamics; paradigm; framework for; insights; insightful; passionate about;
strategies; strategic; optimize; maximize; minimize; maximizing; minimizing; focus on; focusing on; focused on;
focuses on; share with you; thought provoking; from a young age; individuals and communities; in a nutshell; would
like to share; last but not least
"""
MODERN_IDIOM: tuple[str, ...] = tuple(" ".join(phrase.split()) for phrase in _MODERN.split(";"))
MODERN_OPENING = re.compile(
    r"(?:^|[.!?:]\s+|\n\s*)((?:additionally|overall|in summary|to summarize|furthermore|sure|certainly|"
    r"absolutely|of course|definitely|remember|ultimately|in essence|however, it's|firstly|secondly)[,!])"
)


def _openings(folded: str) -> list[str]:
    return [m.group(1) for m in MODERN_OPENING.finditer(folded)]


def modern_openings(text: str) -> list[str]:
    """The opening words of a chat assistant (`additionally,`), with their mark; one entry for each occurrence."""
    return _openings(_folded(text))


def _modern_idiom(folded: str, tokens: Sequence[str]) -> list[str]:
    return _find_phrases(tokens, MODERN_IDIOM) + _openings(folded)


def modern_idiom(text: str) -> list[str]:
    """Turns of phrase of our own day, and the opening words of a chat assistant; one entry for each occurrence."""
    return _modern_idiom(_folded(text), words(text))


_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(
    rf"\b(?:\d{{1,2}}(?:st|nd|rd|th|d)?(?: day)?(?: of)? (?:{_MONTHS})|(?:{_MONTHS}) \d{{1,2}}(?:st|nd|rd|th|d)?)\b"
    r"(?:,? (?:of )?\d{4}\b)?"
    rf"|\b(?:{_MONTHS})(?: last| next|,? \d{{4}})\b"
)
_UNIT = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|"
    "nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|hundreds|thousand|thousands|million|"
    "millions|dozen|dozens"
)
_NUMBER = re.compile(
    rf"[$£]?\d+(?:[.,]\d+)*|\b(?:one[ -])?(?:{_UNIT})(?:(?:[ -]|,? and )(?:one|{_UNIT}))*\b", re.IGNORECASE
)
_NAME = re.compile(
    r"\b(?!(?:I|O|I'[a-z]+)\b)[A-Z\u00c0-\u00de][\w'.-]*"
    r"(?: (?:of |the |of the |and |de )?(?!(?:I|I'[a-z]+)\b)[A-Z\u00c0-\u00de][\w'.-]*)*"
)


def specifics(text: str) -> int:
    """Numbers (in figures or words, `one` alone excepted), dates, and capitalised names inside a sentence.

    A date, a number of several words and a name of several words count once each; a sentence's first word is no name.
    """
    total = 0
    for sentence in sentences(normalise(text)):
        rest, dates = _DATE.subn(" , ", sentence)
        rest, numbers = _NUMBER.subn(" , ", rest)
        first = re.match(r"\W*[\w'-]+", rest)
        total += dates + numbers + len(_NAME.findall(rest, first.end() if first else 0))
    return total


def first_person(text: str) -> float:
    """First person singular (I, me, my, mine, myself, I'm …) per 100 words; 0.0 for a text without words."""
    tokens = words(text)
    said = sum(1 for w in tokens if w in {"i", "me", "my", "mine", "myself"} or w.startswith("i'"))
    return 100.0 * said / len(tokens) if tokens else 0.0


# -- repetition --------------------------------------------------------------------------------------------------------


def distinct_n(text: str, n: int) -> float:
    """Distinct word n-grams over all of them (Li et al. 2016, distinct-n), in [0, 1]; 0.0 with fewer than n words."""
    tokens = words(text)
    total = len(tokens) - n + 1
    return len(set(zip(*(tokens[i:] for i in range(n)), strict=False))) / total if total > 0 else 0.0


def repetition(text: str, n: int = 4) -> float:
    """Share of word n-grams that have been said before in the text, in [0, 1); 0.0 with fewer than n words."""
    return 1.0 - distinct_n(text, n) if len(words(text)) >= n else 0.0


def longest_loop(text: str, max_period: int = 60) -> int:
    """Words in the longest stretch that says a unit of at most `max_period` words twice or more without a break.

    0 when nothing is said twice in a row. `a b c a b c a` is a loop of 7 words (the last turn may be cut short).
    """
    tokens = words(text)
    known: dict[str, int] = {}
    numbers = np.fromiter((known.setdefault(w, len(known)) for w in tokens), dtype=np.int64, count=len(tokens))
    longest = 0
    for period in range(1, min(max_period, len(numbers) // 2) + 1):
        same = np.flatnonzero(numbers[period:] != numbers[:-period])
        edges = np.concatenate(([-1], same, [len(numbers) - period]))
        run = int(np.diff(edges).max()) - 1
        if run >= period:
            longest = max(longest, run + period)
    return longest


class Runs:
    """The word-for-word runs of one text, ready to be sought in many others.

    A suffix automaton (Blumer et al. 1985): built once in O(len(tokens)), each search is O(len(other)).
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._link, self._length = [-1], [0]
        last = 0
        for token in tokens:
            state = self._add(self._length[last] + 1, {})
            at = last
            while at >= 0 and token not in self._next[at]:
                self._next[at][token] = state
                at = self._link[at]
            if at < 0:
                self._link[state] = 0
            else:
                target = self._next[at][token]
                if self._length[target] == self._length[at] + 1:
                    self._link[state] = target
                else:
                    copy = self._add(self._length[at] + 1, dict(self._next[target]))
                    self._link[copy] = self._link[target]
                    while at >= 0 and self._next[at].get(token) == target:
                        self._next[at][token] = copy
                        at = self._link[at]
                    self._link[target] = self._link[state] = copy
            last = state

    def _add(self, length: int, following: dict[str, int]) -> int:
        self._next.append(following)
        self._link.append(-1)
        self._length.append(length)
        return len(self._next) - 1

    def longest_in(self, other: Sequence[str]) -> tuple[int, int]:
        """(words, end) of the longest run shared with `other`: `other[end - words:end]`, the first of its length."""
        state = run = best = end = 0
        following, links, lengths = self._next, self._link, self._length
        for position, token in enumerate(other, 1):
            while state and token not in following[state]:
                state = links[state]
                run = lengths[state]
            if token in following[state]:
                state = following[state][token]
                run += 1
            if run > best:
                best, end = run, position
        return best, end


def longest_common_run(a_words: Sequence[str], b_words: Sequence[str]) -> int:
    """Length in words of the longest run that both sequences share word for word. O(len(a) + len(b)).

    To seek one text in many, build `Runs` once instead.
    """
    shorter, longer = sorted((a_words, b_words), key=len)
    return Runs(shorter).longest_in(longer)[0]


# -- voice -------------------------------------------------------------------------------------------------------------

VOICE_WEIGHTS = {"period_markers": 0.40, "sentence_length": 0.20, "contractions": 0.15, "idiom": 0.15, "markdown": 0.10}
FULL_MARKERS = 2.0  # per 100 words; half of Madison's own paragraphs have none, one in ten reaches it
SHORT_SENTENCE, LONG_SENTENCE = 14.0, 36.0  # mean words in a sentence: 0 at the first, full at the second
TOLERATED = 2.0  # modern marks per 100 words at which a part is lost


def voice_parts(text: str, period_markers: Sequence[str]) -> dict[str, float]:
    """The five parts of `voice`, each in [0, 1], by the names of VOICE_WEIGHTS; all 0.0 for a text without words."""
    tokens = words(text)
    if not tokens:
        return dict.fromkeys(VOICE_WEIGHTS, 0.0)
    hundred = 100.0 / len(tokens)
    folded = _folded(text)
    modern = len(_modern_idiom(folded, tokens)) + sum(1 for _ in AI_SELF_REFERENCE.finditer(folded))
    mean_sentence = len(tokens) / max(1, len(sentence_spans(text)))
    length = (mean_sentence - SHORT_SENTENCE) / (LONG_SENTENCE - SHORT_SENTENCE)
    return {
        "period_markers": min(1.0, len(_find_phrases(tokens, tuple(period_markers))) * hundred / FULL_MARKERS),
        "sentence_length": min(1.0, max(0.0, length)),
        "contractions": max(0.0, 1.0 - sum(map(_is_contraction, tokens)) * hundred / TOLERATED),
        "idiom": max(0.0, 1.0 - modern * hundred / TOLERATED),
        "markdown": max(0.0, 1.0 - markdown_marks(text) * hundred / TOLERATED),
    }


def voice(text: str, period_markers: Sequence[str]) -> float:
    """How far a text reads like its period, in [0, 1]: a weighted mean of five counts that a reader can check by hand.

    | part            | weight | full                                 | nothing                              |
    | --------------- | ------ | ------------------------------------ | ------------------------------------ |
    | period_markers  | 0.40   | 2 of `period_markers` per 100 words  | none                                 |
    | sentence_length | 0.20   | 36 words in the mean sentence        | 14 or fewer                          |
    | contractions    | 0.15   | none                                 | 2 per 100 words                      |
    | idiom           | 0.15   | no modern idiom, no speech of an AI  | 2 per 100 words                      |
    | markdown        | 0.10   | no mark                              | 2 marks per 100 words                |

    Linear between; 0.0 for a text without words. It reads register, never truth: nonsense in period words scores well.
    """
    parts = voice_parts(text, period_markers)
    return sum(VOICE_WEIGHTS[name] * value for name, value in parts.items())
