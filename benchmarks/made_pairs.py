"""Made preference pairs at any number: real lengths, a natural share of common words, planted duplicates and defects.

Words are drawn as language draws them: close to half of them from forty common English words, the rest from twenty
thousand made ones by Zipf's law, so that two answers share words but hardly ever three in a row. A prompt has about 15
words, each answer about 90; chosen answers have long sentences and some words of the period, rejected ones short
sentences, contractions, and here and there a list. Equal seeds give equal files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

_COMMON: list[str] = str.split(
    "the of and to in that it was is for on be with as by which this had not are his have from they we been their were "
    "would will but or an at our has all so if no"
)
_PERIOD: list[str] = str.split(
    "whilst hitherto thereof salutary requisite propitious sundry latterly heretofore wherein"
)
_MADE_WORDS = 20_000
_BATCH = 10_000
_COMMAS, _PERIODS = 0.06, 0.03
CATEGORIES = ("ground_truth", "verified_response", "position_discrimination", "character_consistency")

# Defect → what it does to (prompt, chosen, rejected); `was` is a text that ends in a mark.
_DEFECTS: dict[str, Any] = {
    "empty": lambda p, c, r: (p, c, " … "),
    "mojibake": lambda p, c, r: (p, c, r + " It donâ€™t end."),
    "control": lambda p, c, r: (p, c.replace(" ", " \u200b", 1), r),
    "language": lambda p, c, r: (p, c, _GERMAN),
    "short": lambda p, c, r: (p, " ".join(c.split()[:12]) + ".", r),
    "truncated": lambda p, c, r: (p, c.rstrip(".") + " and the", r),
    "loop": lambda p, c, r: (p, c, " ".join(r.split()[:9]) + ". " + (" ".join(r.split()[:9]) + ". ") * 8),
    "machine": lambda p, c, r: (p, c + " So I say as an AI model.", r),
    "markdown": lambda p, c, r: (p, c + "\n\n- **A point** it is.", r),
    "contractions": lambda p, c, r: (p, c + " They don’t know it.", r),
    "idiom": lambda p, c, r: (p, c + " At the end of the day it is a lot of mindset.", r),
    "anachronism": lambda p, c, r: (p, c + " It was told by telephone.", r),
    "equal": lambda p, c, r: (p, c, c.upper()),
    "swapped": lambda p, c, r: (p, r, c),
    "suite": lambda p, c, r: ("", c, r),  # the prompt is put in where the file is made
    "held_out": lambda p, c, r: (p, c + " " + HELD_OUT[0], r),
}
_GERMAN = (
    "Der Kongress soll eine Bank gründen, damit das Volk davon einen Nutzen habe, und zwar bald, denn die Zeit ist kurz "
    "und niemand weiß, was der kommende Winter bringen wird, wenn die Schiffe nicht mehr fahren."
)
HELD_OUT = (
    "The returns of the several ports were laid upon the table before the sixth of the month, and were found to agree.",
    "No officer of the customs was thereafter suffered to absent himself without leave of the collector in writing.",
)
_EACH, _EXACT, _NEAR = 0.004, 0.02, 0.03
PARTS = (
    f"Planted: {_EXACT:.0%} say an earlier pair again, {_NEAR:.0%} say it with a few words changed, and "
    f"{_EACH:.1%} have each of {len(_DEFECTS)} defects."
)


def _vocabulary(seed: int) -> NDArray[np.object_]:
    """Every word in four forms, one after the other: plain, capital, before a full stop, before a comma."""
    rng = np.random.default_rng(seed)
    syllables = np.array([a + b for a in "bcdfglmnprstv" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "ol")])
    counts = rng.integers(2, 5, _MADE_WORDS)
    made = ["".join(rng.choice(syllables, n)) for n in counts]
    words = [*_COMMON, *_PERIOD, *made]
    forms = [*words, *(w.capitalize() for w in words), *(w + "." for w in words), *(w + "," for w in words)]
    return np.array(forms, dtype=object)


def _texts(
    rng: np.random.Generator, forms: NDArray[np.object_], rows: int, mean: int, sentence: int, period: float
) -> list[str]:
    """`rows` texts of `mean` words in sentences of about `sentence`; a share `period` of their words is of the period."""
    size = len(forms) // 4
    lengths = np.clip(rng.normal(mean, mean / 5, rows), 5, mean * 1.35).astype(int)
    total = int(lengths.sum())
    made = np.minimum(rng.zipf(1.2, total), _MADE_WORDS) - 1
    words = np.where(rng.random(total) < 0.45, rng.integers(0, len(_COMMON), total), made + len(_COMMON) + len(_PERIOD))
    words = np.where(rng.random(total) < period, rng.integers(len(_COMMON), len(_COMMON) + len(_PERIOD), total), words)
    ends = np.zeros(total, dtype=bool)
    last = np.cumsum(lengths) - 1
    within = np.arange(total) - np.repeat(last - lengths + 1, lengths)
    step = np.repeat(np.clip(rng.normal(sentence, sentence / 4, rows), 4, None).astype(int), lengths)
    ends[within % step == step - 1] = True
    ends[last] = True
    starts = np.concatenate(([True], ends[:-1]))
    form = np.where(ends, 2, np.where(starts, 1, np.where(rng.random(total) < _COMMAS, 3, 0)))
    said = forms[words + form * size].tolist()
    bounds = [0, *(last + 1).tolist()]
    return [" ".join(said[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]


def _batch(
    rng: np.random.Generator, forms: NDArray[np.object_], first: int, rows: int, suite_prompt: str
) -> dict[str, list[Any]]:
    prompts = [t.rstrip(".") + "?" for t in _texts(rng, forms, rows, 15, 40, 0.0)]
    chosen = _texts(rng, forms, rows, 90, 32, _PERIODS)
    rejected = _texts(rng, forms, rows, 90, 11, 0.0)
    for i in range(rows):
        if rng.random() < 0.3:
            rejected[i] += rng.choice(
                [" It’s so — you don't know.", " Additionally, it is so.", "\n\n1. It is so.\n2. Or not."]
            )
        if rng.random() < 0.02:
            chosen[i] = " " + chosen[i].replace(". ", ".\r\n", 1)
    defects = list(_DEFECTS.values())
    at = np.flatnonzero(rng.random(rows) < _EACH * len(defects)).tolist()
    for i in at:
        change = defects[int(rng.integers(len(defects)))]
        prompts[i], chosen[i], rejected[i] = change(prompts[i], chosen[i], rejected[i])
        prompts[i] = prompts[i] or suite_prompt
    kind = rng.random(rows)
    for i in range(1, rows):
        earlier = int(rng.integers(i))
        if kind[i] < _EXACT:
            prompts[i], chosen[i] = prompts[earlier], chosen[earlier].replace(", ", " – ")
        elif kind[i] < _EXACT + _NEAR:
            words = chosen[earlier].split(" ")
            for k in rng.integers(0, len(words), max(1, len(words) // 60)).tolist():
                words[k] = forms[int(rng.integers(len(forms) // 4))]
            prompts[i], chosen[i] = prompts[earlier], " ".join(words)
    numbers = range(first, first + rows)
    return {
        "prompt_id": [f"made-{n:08d}" for n in numbers],
        "prompt": prompts,
        "chosen": chosen,
        "rejected": rejected,
        "category": [CATEGORIES[n % len(CATEGORIES)] for n in numbers],
        "difficulty": ["medium"] * rows,
        "origin": ["base"] * rows,
        "passage_ids": [[f"passage-{n % 997}"] for n in numbers],
        "teacher": ["primary_source"] * rows,
        "student": ["base"] * rows,
        "teacher_request_hash": ["0" * 64] * rows,
        "student_request_hash": ["0" * 64] * rows,
        "fit": [0.5] * rows,
        "upsample": [1] * rows,
        "finish_reason": ["stop"] * rows,
    }


def write_pairs(path: Path, rows: int, seed: int, suite_prompt: str) -> str:
    """Write `rows` made pairs as Parquet; says in words how long they are. Some have the prompt `suite_prompt`."""
    rng = np.random.default_rng(seed)
    forms = _vocabulary(seed)
    parts, counts = [], np.zeros(3)
    for first in range(0, rows, _BATCH):
        part = pl.DataFrame(_batch(rng, forms, first, min(_BATCH, rows - first), suite_prompt))
        counts += [int(part[s].str.count_matches(r"\S+").sum()) for s in ("prompt", "chosen", "rejected")]
        parts.append(part)
    pl.concat(parts).write_parquet(path)
    prompt, chosen, rejected = (counts / rows).round().astype(int).tolist()
    return f"{prompt} words a prompt, {chosen} a chosen and {rejected} a rejected answer"
