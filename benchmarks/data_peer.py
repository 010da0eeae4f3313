"""The peer of `benchmarks.data`: the same rules in pandas, near-duplicates by datasketch, a GX suite on the wide frame.

What a word, a contraction or a voice score is comes from `foundry_pipeline.textstats`, a text at a time, through
`.apply`; every text's words are taken once and kept in a column. Near-duplicates go through `MinHashLSH` with its own
choice of bands, and are verified by exact Jaccard similarity. The scores are computed once and
reused by the gate, where Foundry's gate measures the texts anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from datasketch import MinHash, MinHashLSH
from ftfy.badness import badness
from great_expectations.data_context.types.base import ProgressBarsConfig
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from benchmarks.made_pairs import HELD_OUT
from foundry_pipeline import textstats
from foundry_pipeline.declarations import CharacterFiles
from foundry_pipeline.declarations.assets import Filters
from foundry_pipeline.declarations.common import CATEGORIES, DIFFICULTIES
from foundry_pipeline.pairs.candidates import pair_id
from foundry_pipeline.pairs.duplicates import SAME_QUESTION, jaccard, shingles
from foundry_pipeline.pairs.language import _ENGLISH, _ENOUGH
from foundry_pipeline.pairs.overlap import OverlapIndex

SIDES = ("prompt", "chosen", "rejected")
PERMUTATIONS = 128  # datasketch's default
ENDED = r"[.!?…][\"'”’)\]*_]*\s*$"


def run(path: Path, files: CharacterFiles, filters: Filters, clock: Any) -> tuple[Any, Any, bool]:
    """(clock, first rule of each row or None, whether the gate passed)."""
    pairs = clock.step("read", lambda: pd.read_parquet(path))
    clock.step("clean", lambda: clean(pairs))
    suite = [p.text for p in files.suite.prompts]
    rules = clock.step("filter", lambda: filtered(pairs, files, filters, suite))
    clock.step("near-duplicates", lambda: near_duplicates(pairs, rules, filters.near_duplicate))
    kept = pairs[rules.isna()]
    kept = clock.step("ids", lambda: kept.assign(pair_id=ids(kept)))
    passed = clock.step("gate", lambda: gate(kept, filters))
    import polars as pl

    return clock, pl.Series("rule", rules.where(rules.notna(), None).tolist(), dtype=pl.String), passed


def clean(pairs: pd.DataFrame) -> None:
    for side in SIDES:
        texts = pairs[side].str.replace("\r\n", "\n", regex=False).str.replace("\r", "\n", regex=False)
        pairs[side] = texts.str.strip().str.normalize("NFC")


def filtered(pairs: pd.DataFrame, files: CharacterFiles, filters: Filters, suite: list[str]) -> pd.Series:
    """The first rule that each row breaks, None where it breaks none; adds the columns that the rules read."""
    character = files.character
    for side in SIDES:
        pairs[f"{side}_tokens"] = pairs[side].apply(textstats.words)
        pairs[f"{side}_words"] = pairs[f"{side}_tokens"].apply(len)
    for side in ("chosen", "rejected"):
        pairs[f"{side}_repetition"] = pairs[f"{side}_tokens"].apply(repetition)
        pairs[f"{side}_voice"] = pairs[side].apply(lambda t: round(textstats.voice(t, character.period_markers), 6))
    pairs["voice_contrast"] = (pairs["chosen_voice"] - pairs["rejected_voice"]).round(6)
    overlaps = {
        "suite_overlap": OverlapIndex(suite, filters.suite_overlap_ngram),
        "held_out_overlap": OverlapIndex(HELD_OUT, filters.suite_overlap_ngram),
    }
    chosen, rejected = pairs["chosen"], pairs["rejected"]
    broken = {
        "empty": (pairs[[f"{s}_words" for s in SIDES]] == 0).any(axis=1),
        "mojibake": any_side(
            pairs, lambda t: not t.isascii() and badness(t) + t.count("\ufffd") > filters.max_mojibake
        ),
        "control_characters": any_side(pairs, has_control),
        "wrong_language": foreign(pairs, filters),
        "too_short": (pairs["chosen_words"] < filters.min_chosen_words)
        | (pairs["rejected_words"] < filters.min_rejected_words),
        "too_long": (pairs["chosen_words"] > filters.max_chosen_words)
        | (pairs["rejected_words"] > filters.max_rejected_words),
        "truncated": ~chosen.str.contains(ENDED)
        | ((pairs["finish_reason"] == "length") & ~rejected.str.contains(ENDED)),
        "loop": (pairs["chosen_repetition"] > filters.max_repetition)
        | (pairs["rejected_repetition"] > filters.max_repetition),
        "ai_self_reference_in_chosen": chosen.apply(lambda t: len(textstats.ai_self_reference(t)) > 0),
        "markdown_in_chosen": chosen.apply(textstats.markdown_marks) > 0,
        "contractions_in_chosen": chosen.apply(textstats.contractions) > filters.max_chosen_contractions,
        "modern_idiom_in_chosen": chosen.apply(lambda t: len(textstats.modern_idiom(t)) > 0),
        "anachronism_in_chosen": chosen.apply(lambda t: textstats.contains_any(t, character.anachronisms)),
        "sides_equal": pairs["chosen_tokens"] == pairs["rejected_tokens"],
        "swapped_sides": pairs["voice_contrast"] < 0,
        "weak_voice_contrast": pairs["voice_contrast"] < filters.min_voice_contrast,
    }
    for rule, index in overlaps.items():
        pairs[rule] = pairs["prompt"].apply(index.longest) + chosen.apply(index.longest)
        broken[rule] = pairs[rule] > 0
    first = pd.Series(None, index=pairs.index, dtype=object)
    for rule, rows in broken.items():
        first[rows & first.isna()] = rule
    said = pairs["prompt_tokens"].apply(" ".join) + "\n" + pairs["chosen_tokens"].apply(" ".join)
    first[first.isna() & said.where(first.isna()).duplicated() & first.isna()] = "exact_duplicate"
    return first


def any_side(pairs: pd.DataFrame, holds: Any) -> pd.Series:
    return pairs["prompt"].apply(holds) | pairs["chosen"].apply(holds) | pairs["rejected"].apply(holds)


def has_control(text: str) -> bool:
    if text.isprintable():
        return False
    import unicodedata

    return any(c not in "\n\t" and unicodedata.category(c) in {"Cc", "Cf", "Cn", "Co", "Cs"} for c in text)


def repetition(tokens: list[str]) -> float:
    grams = list(zip(*(tokens[i:] for i in range(4)), strict=False))
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def foreign(pairs: pd.DataFrame, filters: Filters) -> pd.Series:
    """Common words first, as in Foundry: the identifier alone would take ten times as long."""
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    common = set(_ENGLISH.split())

    def judge(text: str, tokens: list[str]) -> bool:
        if tokens and sum(t in common for t in tokens) >= _ENOUGH * len(tokens):
            return False
        if len(text.encode()) < filters.min_language_bytes:
            return False
        label, confidence = identifier.classify(text[:4000])
        return label != filters.language and round(float(confidence), 3) >= filters.min_language_confidence

    found = pd.Series(False, index=pairs.index)
    for side in SIDES:
        found |= pd.Series(
            [judge(t, w) for t, w in zip(pairs[side], pairs[f"{side}_tokens"], strict=True)], index=pairs.index
        )
    return found


def near_duplicates(pairs: pd.DataFrame, rules: pd.Series, threshold: float) -> None:
    """Mark in `rules` what says almost what an earlier kept pair says."""
    lsh = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    sets: dict[int, Any] = {}
    for row in pairs.index[rules.isna()]:
        prompt, chosen = pairs.at[row, "prompt"], pairs.at[row, "chosen"]
        said = shingles(prompt) | shingles(chosen)
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([" ".join(s).encode() for s in said])
        asked = frozenset(pairs.at[row, "prompt_tokens"])
        for other in sorted(lsh.query(sketch)):
            there, then = sets[other]
            if jaccard(said, there) >= threshold and jaccard(asked, then) >= SAME_QUESTION:
                rules.at[row] = "near_duplicate"
                break
        else:
            lsh.insert(row, sketch)
            sets[row] = (said, asked)


def ids(pairs: pd.DataFrame) -> list[str]:
    columns = (pairs[c] for c in ("prompt", "chosen", "rejected", "origin"))
    return [pair_id(*row) for row in zip(*columns, strict=True)]


def gate(pairs: pd.DataFrame, filters: Filters) -> bool:
    """The checks of a dataset, in one validation of the wide frame."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    wide = pairs.drop(columns=[f"{s}_tokens" for s in SIDES])
    wide["sides_differ"] = pairs["chosen_tokens"] != pairs["rejected_tokens"]
    wide["id_matches_content"] = pd.Series(ids(pairs), index=pairs.index) == pairs["pair_id"]
    wide["category_share"] = wide["category"].map(wide["category"].value_counts(normalize=True))
    wide["category_voice_contrast"] = wide.groupby("category")["voice_contrast"].transform("mean")
    e = gx.expectations
    required = ("pair_id", "prompt", "chosen", "rejected", "category", "difficulty", "origin", "prompt_id", "teacher")
    suite = [
        e.ExpectTableRowCountToBeBetween(min_value=1),
        e.ExpectColumnValuesToBeUnique(column="pair_id"),
        *(e.ExpectColumnValuesToNotBeNull(column=c) for c in required),
        e.ExpectColumnValuesToBeBetween(
            column="chosen_words", min_value=filters.min_chosen_words, max_value=filters.max_chosen_words
        ),
        e.ExpectColumnValuesToBeBetween(
            column="rejected_words", min_value=filters.min_rejected_words, max_value=filters.max_rejected_words
        ),
        e.ExpectColumnValuesToBeInSet(column="category", value_set=list(CATEGORIES)),
        e.ExpectColumnValuesToBeInSet(column="difficulty", value_set=list(DIFFICULTIES)),
        e.ExpectColumnValuesToBeInSet(column="origin", value_set=["base"]),
        e.ExpectColumnValuesToBeBetween(column="upsample", min_value=1),
        e.ExpectColumnValuesToBeInSet(column="suite_overlap", value_set=[0]),
        e.ExpectColumnValuesToBeInSet(column="held_out_overlap", value_set=[0]),
        e.ExpectColumnValuesToBeInSet(column="sides_differ", value_set=[True]),
        e.ExpectColumnValuesToBeInSet(column="id_matches_content", value_set=[True]),
        e.ExpectColumnMaxToBeBetween(column="category_share", max_value=0.75),
        e.ExpectColumnMeanToBeBetween(column="voice_contrast", min_value=0.0),
        e.ExpectColumnMinToBeBetween(column="category_voice_contrast", min_value=0.0),
    ]
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("pairs").add_dataframe_asset("dataset")
    batch = asset.add_batch_definition_whole_dataframe("all")
    made = context.suites.add(gx.ExpectationSuite(name="dataset", expectations=suite))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="dataset", data=batch, suite=made))
    return bool(definition.run(batch_parameters={"dataframe": wide}, result_format="SUMMARY").success)
