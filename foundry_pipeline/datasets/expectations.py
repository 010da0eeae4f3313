"""Data checks of a dataset: one Great Expectations suite, run once, before anything trains on it.

Polars computes flags, lengths and shares; Great Expectations (1.24, which takes no Polars frame) judges that narrow
frame. What its rules pass over in silence is closed here:

- an empty frame passes every column rule: `row_count` fails it;
- nulls are skipped by in-set and between rules: flags are never null, and `no_nulls` counts what is missing;
- a rule that raised looks like one that failed, in two shapes: either is an error, whatever its severity.

A failed `error` blocks training; a failed `warning` is shown.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from foundry_pipeline import textcolumns
from foundry_pipeline.datasets.content import dataset_hash
from foundry_pipeline.datasets.flags import pair_flags
from foundry_pipeline.datasets.mixture import recipe_size
from foundry_pipeline.declarations.assets import Dataset, Profile
from foundry_pipeline.declarations.common import CATEGORIES, DIFFICULTIES
from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.lineage.hashing import code_version, digest
from foundry_pipeline.pairs.overlap import OverlapIndex

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["error", "warning"]
ORIGINS = ("base", "voice", "on_policy", "source_enriched", "introspection")
SAMPLE = 5  # pair ids shown of those that fail a rule
_CODE = (
    *textcolumns.MODULES,
    "foundry_pipeline.pairs.candidates",
    "foundry_pipeline.pairs.overlap",
    "foundry_pipeline.datasets.flags",
    "foundry_pipeline.datasets.content",
    "foundry_pipeline.datasets.expectations",
)


@dataclass(frozen=True)
class Expectation:
    """One named rule: a Great Expectations type, the narrow frame's column it reads, and its bounds."""

    name: str
    severity: Severity
    type: str
    column: str | None
    bound: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """How one expectation came out. `observed` is a count of failing rows, or the measured value of an aggregate."""

    name: str
    severity: Severity
    passed: bool
    observed: float | int | str | None
    bound: dict[str, Any]
    rows_failed: int | None
    sample: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What the checks say of exactly one dataset under exactly one suite."""

    dataset: str
    dataset_hash: str
    suite_hash: str
    passed: bool
    results: tuple[Result, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it (lists, not tuples)."""
        out = asdict(self)
        return {**out, "results": [{**r, "sample": list(r["sample"])} for r in out["results"]]}

    def failed(self, severity: Severity) -> tuple[str, ...]:
        return tuple(r.name for r in self.results if not r.passed and r.severity == severity)


def build_suite(dataset: Dataset, *, profile: Profile, declared: Mapping[str, Dataset]) -> tuple[Expectation, ...]:
    """The expectations of a dataset at a profile's size; `declared` holds the datasets its recipe takes over."""
    bounds, filters = profile.expectations, profile.filters
    rows = recipe_size(dataset, profile.size_of(dataset.dataset), declared)["rows"]

    def flag(name: str) -> Expectation:
        return Expectation(name, "error", "ExpectColumnValuesToBeInSet", name, {"value_set": [True]})

    def known(column: str, values: Sequence[str]) -> Expectation:
        bound = {"value_set": list(values)}
        return Expectation(f"{column}_known", "error", "ExpectColumnValuesToBeInSet", column, bound)

    def between(name: str, column: str, **limits: float) -> Expectation:
        return Expectation(name, "error", "ExpectColumnValuesToBeBetween", column, limits)

    least = math.ceil(Fraction(str(bounds.min_rows_share)) * rows)
    share = {"max_value": bounds.max_category_share}
    suite = [
        Expectation("row_count", "error", "ExpectTableRowCountToBeBetween", None, {"min_value": least}),
        Expectation("pair_id_unique", "error", "ExpectColumnValuesToBeUnique", "pair_id", {}),
        flag("no_nulls"),
        between(
            "chosen_length", "chosen_words", min_value=filters.min_chosen_words, max_value=filters.max_chosen_words
        ),
        known("category", CATEGORIES),
        known("difficulty", DIFFICULTIES),
        known("origin", ORIGINS),
        between("upsample_positive", "upsample", min_value=1),
        flag("no_suite_overlap"),
        flag("no_held_out_overlap"),
        flag("id_matches_content"),
        flag("content_hash_matches"),
        Expectation("category_share", "warning", "ExpectColumnMaxToBeBetween", "category_share", share),
    ]
    if dataset.method == "preference":
        more = {"min_value": bounds.min_voice_contrast, "strict_min": True}
        suite += [
            between(
                "rejected_length",
                "rejected_words",
                min_value=filters.min_rejected_words,
                max_value=filters.max_rejected_words,
            ),
            flag("sides_differ"),
            Expectation("voice_contrast", "error", "ExpectColumnMeanToBeBetween", "voice_contrast", more),
            Expectation(
                "voice_contrast_by_category", "warning", "ExpectColumnMinToBeBetween", "category_voice_contrast", more
            ),
        ]
    return tuple(suite)


def suite_hash(suite: Sequence[Expectation], texts: Mapping[str, Iterable[str]]) -> str:
    """SHA-256 (hex) of the expectations, their bounds, the texts they compare with, and this code's version."""
    return digest(
        {
            "expectations": [asdict(e) for e in suite],
            "texts": {name: sorted(set(t)) for name, t in texts.items()},
            "code": code_version(_CODE),
        }
    )


def flag_frame(
    frame: pl.DataFrame,
    *,
    method: str,
    character: Character,
    overlaps: Mapping[str, OverlapIndex],
    hash_matches: bool,
) -> pl.DataFrame:
    """The narrow frame that is judged: ids, classes, flags, lengths and shares; one row a pair, in its order.

    Voice contrast and lengths are taken from the texts, not from stored scores. Lengths of missing sides and contrasts
    without two sides are null; flags never are.
    """
    required = ["pair_id", "prompt", "chosen", "category", "difficulty", "origin", "prompt_id", "teacher"]
    if method == "preference":
        required += ["rejected", "student"]
    missing = pl.any_horizontal(
        *(pl.col(c).is_null() | (pl.col(c).str.strip_chars() == "") for c in required), pl.col("upsample").is_null()
    )
    named = pl.col("passage_ids").list.len().fill_null(0) > 0
    narrow = frame.select(
        "pair_id",
        "category",
        "difficulty",
        "origin",
        "upsample",
        no_nulls=(~missing & (named | (pl.col("teacher") != "primary_source"))).fill_null(value=False),
        content_hash_matches=pl.lit(hash_matches),
    ).hstack(pair_flags(frame, character=character, overlaps=overlaps))
    return narrow.with_columns(
        category_share=pl.len().over("category") / pl.len(),
        category_voice_contrast=pl.col("voice_contrast").mean().over("category"),
    )


def check_dataset(
    frame: pl.DataFrame,
    *,
    dataset: Dataset,
    profile: Profile,
    character: Character,
    suite_texts: Iterable[str],
    held_out_texts: Iterable[str],
    declared: Mapping[str, Dataset],
    expected_hash: str | None = None,
) -> Verdict:
    """Judge a dataset (columns PAIRS).

    suite_texts: prompts of every evaluation suite; held_out_texts: text of the held-out documents.
    declared: the datasets that its recipe takes over. expected_hash: the hash it is stored under, if it is stored.
    """
    suite = build_suite(dataset, profile=profile, declared=declared)
    texts = {"suite": list(suite_texts), "held_out": list(held_out_texts)}
    content = dataset_hash(frame)
    narrow = flag_frame(
        frame,
        method=dataset.method,
        character=character,
        overlaps={name: OverlapIndex(t, profile.filters.suite_overlap_ngram) for name, t in texts.items()},
        hash_matches=expected_hash in (None, content),
    )
    results = judge(narrow, suite)
    return Verdict(
        dataset=dataset.dataset,
        dataset_hash=content,
        suite_hash=suite_hash(suite, texts),
        passed=all(r.passed for r in results if r.severity == "error"),
        results=results,
    )


def judge(narrow: pl.DataFrame, suite: Sequence[Expectation]) -> tuple[Result, ...]:
    """Run the suite on a narrow frame in one validation; results in the order of the suite."""
    raw = _validate(narrow.select(_columns(narrow, suite)).to_pandas(), suite)
    ids = narrow["pair_id"].to_list()
    return tuple(_result(e, raw[e.name], ids) for e in suite)


def _columns(narrow: pl.DataFrame, suite: Sequence[Expectation]) -> list[str]:
    """Only what the suite reads: the wide frame costs seconds and gigabytes at a million rows."""
    wanted = {e.column for e in suite}
    return [c for c in narrow.columns if c in wanted]


def _result(expectation: Expectation, raw: Mapping[str, Any], ids: Sequence[str | None]) -> Result:
    def made(passed: bool, observed: Any, failed: int | None = None, sample: Iterable[int] = ()) -> Result:
        shown = tuple(str(ids[i]) for i in list(sample)[:SAMPLE])
        severity = expectation.severity if not isinstance(observed, str) else "error"
        return Result(expectation.name, severity, passed, observed, expectation.bound, failed, shown)

    if (message := _raised(raw["exception_info"])) is not None:
        return made(passed=False, observed=f"could not be judged: {message}")
    found = raw["result"]
    if "observed_value" in found:
        value = found["observed_value"]
        number = value if value is None or isinstance(value, int) else round(float(value), 6)
        return made(bool(raw["success"]), number)
    failed = int(found["unexpected_count"])
    return made(bool(raw["success"]), failed, failed, found.get("partial_unexpected_index_list") or ())


def _raised(info: Mapping[str, Any]) -> str | None:
    """The message of an exception inside a rule, from either of the two shapes it is reported in."""
    shapes = [info] if "raised_exception" in info else [v for v in info.values() if isinstance(v, Mapping)]
    messages = [str(s.get("exception_message")) for s in shapes if s.get("raised_exception")]
    return messages[0] if messages else None


@contextmanager
def _without_address_grammars() -> Iterator[None]:
    """Great Expectations draws with Altair, which checks its charts by jsonschema, which has a package compile forty grammars
    of international addresses: 1.6 s of processor time, for a format that nothing here checks. Meanwhile that package counts
    as not installed, which jsonschema is made for."""
    name = "rfc3987_syntax"
    known = sys.modules.get(name)
    sys.modules[name] = known  # type: ignore[assignment]  # None: Python's own mark of a module that cannot be imported
    try:
        yield
    finally:
        if known is None:
            del sys.modules[name]


def _validate(frame: pd.DataFrame, suite: Sequence[Expectation]) -> dict[str, dict[str, Any]]:
    """Great Expectations' own words for each expectation, by name. Nothing is written, shown or sent."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported, where it has such a thing
    with _without_address_grammars():
        import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(enable=False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)

    def expectation(e: Expectation) -> Any:
        make: Callable[..., Any] = getattr(gx.expectations, e.type)
        column = {} if e.column is None else {"column": e.column}
        return make(**column, **e.bound, meta={"name": e.name})

    asset = context.data_sources.add_pandas("pairs").add_dataframe_asset("dataset")
    batch = asset.add_batch_definition_whole_dataframe("all")
    made = context.suites.add(gx.ExpectationSuite(name="dataset", expectations=[expectation(e) for e in suite]))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="dataset", data=batch, suite=made))
    outcome = definition.run(
        batch_parameters={"dataframe": frame},
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": 4 * SAMPLE},
    )
    raw: list[Any] = [r.to_json_dict() for r in outcome.results]
    return {r["expectation_config"]["meta"]["name"]: r for r in raw}
