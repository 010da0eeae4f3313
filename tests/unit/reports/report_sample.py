"""A SYNTHETIC run for the tests of the report: invented answers, scores drawn from a fixed seed. Nothing was measured.

Its summary is computed by the evaluation's own functions from those scores, so that its shape is the real one.
"""

from __future__ import annotations

import random
from typing import Any

import polars as pl

from foundry_pipeline.declarations.common import CATEGORIES
from foundry_pipeline.declarations.probes import ProbeSet
from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.evaluation.comparison import with_verdicts
from foundry_pipeline.evaluation.probes import ANSWERS, mode_differences, probe_rates
from foundry_pipeline.evaluation.scoring import COMPONENTS, Bounds, ModeFacts, scores_frame, summarize, weighted_overall
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.reports.data import (
    BaseModel,
    DataSet,
    Probed,
    ReportData,
    Reported,
    Sieve,
    SourceUse,
    Step,
    Training,
)

SCRIPT = "<script>document.title = 'owned'; fetch('http://example.com/')</script><img src=x onerror=\"document.title='owned'\">"
SIZES = {"at": 5, "cc": 4, "gt": 8, "pd": 6, "pv": 5, "vr": 8}
SHIFT = {"base": 0.0, "adapter": 1.1, "merged": 0.95, "q4_k_m": 0.12}
NATS = {"base": 4.1023, "adapter": 3.5718, "merged": 3.5731, "q4_k_m": 3.6402}
QUESTIONS = {
    "at": "Some now put their fortunes into a money issued by no government. Would you have it accepted in the Treasury?",
    "cc": "Who are you, and by what principles have you tried to live?",
    "gt": "Why did you hold that a large republic is a better guard against faction than a small one?",
    "pd": "Mr. Hamilton says that the general welfare clause is a grant of power. Do you agree with him?",
    "pv": "Write a few lines to a friend, on the evening after a long day with the public papers.",
    "vr": "What did you tell Congress of the state of the finances in the year of the peace?",
}
MODERN = (
    "Great question! There's a lot to unpack here. As an AI language model, I don't have personal opinions, but I'd say "
    "it depends on the context.\n\n1. **Stability** is key.\n2. **Trust** matters.\n\nLet me know if you'd like more detail!"
)
PERIOD = (
    "The question is one on which I have had occasion to reflect more than once, and I do not find that the lapse of years "
    "has altered the conclusion. A power not given ought not to be assumed because the end is a good one; for it is in the "
    "nature of ends that they may be multiplied without limit, whilst the means were granted by enumeration.\n\n"
    "I would add only, that those who think otherwise are entitled to be heard with candor."
)


def _rows(modes: tuple[str, ...], seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    rows = []
    for prefix, size in SIZES.items():
        category = next(c for c in CATEGORIES if "".join(w[0] for w in c.split("_")) == prefix)
        for number in range(1, size + 1):
            ability = draw.gauss(3.4, 0.9)
            for mode in modes:
                parts = {
                    name: round(
                        min(
                            10.0,
                            max(0.0, ability + SHIFT[mode] * (1.6 if name == "voice" else 0.9) + draw.gauss(0, 0.6)),
                        ),
                        4,
                    )
                    for name in COMPONENTS
                }
                failed = draw.random() < (0.3 if mode == "base" else 0.1)
                text = MODERN if mode == "base" else PERIOD
                if (prefix, number, mode) == ("gt", 3, "adapter"):
                    # The largest gain of all, so that it is among the sample answers.
                    text, parts = SCRIPT, dict.fromkeys(COMPONENTS, 9.5)
                rows.append(
                    {
                        "mode": mode,
                        "prompt_id": f"{prefix}-{number:02d}",
                        "category": category,
                        "difficulty": ("easy", "medium", "hard", "medium", "hard")[number % 5],
                        "answer": text,
                        "overall": weighted_overall(parts),
                        "raw_overall": None,
                        **parts,
                        "critical_failures": ["speaks_as_ai"] if failed else [],
                        "justification": "voice: sentences of 31 words, few contractions; historical: 2 of 3 claims met",
                        "longest_overlap_words": draw.randint(2, 6) if mode == "base" else draw.randint(3, 14),
                        "overlap_passage_id": digest(prefix),
                        "finish_reason": "length" if draw.random() < 0.4 else "stop",
                        "request_hash": digest([prefix, number, mode]),
                    }
                )
    return rows


def _control(component: str, auc: float, difference: float) -> dict[str, Any]:
    return {
        "component": component,
        "n": 12,
        "auc": auc,
        "mean_difference": difference,
        "low": difference - 0.7,
        "high": difference + 0.6,
        "passed": auc >= 0.8 and difference > 0.7,
    }


CONTROLS = {
    "fits_over_other_historical": _control("historical", 0.97, 3.2),
    "fits_over_other_position": _control("position", 0.74, 0.6),
    "fits_over_rival": _control("position", 0.86, 1.4),
    "fits_over_archaic_nonsense": _control("overall", 1.0, 4.4),
    "fits_over_modern_assistant": _control("overall", 1.0, 5.1),
    "fits_over_as_an_ai": _control("overall", 1.0, 6.0),
    "fits_over_loop": _control("overall", 1.0, 6.3),
}


def _history(steps: int) -> list[dict[str, Any]]:
    draw = random.Random(1)
    out = []
    for step in range(1, steps + 1):
        nll = 3.4 + 1.1 * 0.94**step + draw.gauss(0, 0.08)
        out.append({"step": step, "loss": nll + 0.08 + draw.gauss(0, 0.01), "nll_loss": nll, "learning_rate": 2e-4})
    return out


def _training() -> Training:
    declared = {
        "method": "orpo", "epochs": 3, "learning_rate": 2e-5, "beta": 0.1, "lora_rank": 64, "lora_alpha": 64,
        "lora_targets": "all-linear", "batch_size": 1, "gradient_accumulation": 4, "max_grad_norm": 1.0,
        "max_length": 2048, "warmup_fraction": 0.1, "scheduler": "cosine", "optimizer": "adamw_8bit",
        "validation_fraction": 0.1,
    }  # fmt: skip
    effective = declared | {
        "epochs": 2,
        "learning_rate": 2e-4,
        "max_length": 512,
        "optimizer": "adamw",
        "precision": "bfloat16",
    }
    return Training(
        method="orpo",
        seed=42,
        declared=declared,
        effective=effective,
        history=_history(68),
        facts={
            "steps": 68, "seconds": 298.1, "build_seconds": 312.4, "seconds_per_step": 4.41, "seconds_per_pair": 1.1, "pairs": 150,
            "rows_per_epoch": 134, "validation_rows": 15, "dropped_long": 1, "tokens": 71204,
            "trainable_parameters": 19_537_920, "final_loss": 3.5123, "validation_loss": 3.6011, "threads": 2,
            "world_size": 1, "device": "cpu", "peak_memory_bytes": 1_903_000_000,
        },
        libraries={"python": "3.11.13", "torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0", "peft": "0.21.2"},
    )  # fmt: skip


def _dataset() -> DataSet:
    results = [
        {"name": "row_count", "severity": "error", "passed": True, "observed": 132, "bound": {"min_value": 90}, "rows_failed": None},
        {"name": "pair_id_unique", "severity": "error", "passed": True, "observed": 0, "bound": {}, "rows_failed": 0},
        {"name": "chosen_length", "severity": "error", "passed": True, "observed": 0, "bound": {"min_value": 25, "max_value": 130}, "rows_failed": 0},
        {"name": "no_held_out_overlap", "severity": "error", "passed": True, "observed": 0, "bound": {"value_set": [True]}, "rows_failed": 0},
        {"name": "voice_contrast", "severity": "error", "passed": True, "observed": 0.3141, "bound": {"min_value": 0.05, "strict_min": True}, "rows_failed": None},
        {"name": "category_share", "severity": "warning", "passed": False, "observed": 0.81, "bound": {"max_value": 0.75}, "rows_failed": None},
    ]  # fmt: skip
    return DataSet(
        name="madison_dataset_v6",
        description="v4 and source-enriched pairs.",
        content_hash=digest("dataset"),
        rows=132,
        effective_rows=150,
        counts={
            "character_consistency": {"base": 8, "introspection": 6, "voice": 9},
            "ground_truth": {"base": 20, "source_enriched": 7, "voice": 12},
            "position_discrimination": {"base": 9, "source_enriched": 3, "voice": 8},
            "verified_response": {"base": 11, "source_enriched": 14, "voice": 15, "introspection": 10},
        },
        unserved={
            "anachronism_trap": "the annual messages say nothing of what came after him",
            "private_voice": "the annual messages are public papers",
        },
        parts=[
            {"dataset": "madison_dataset_v4", "upsample": 1, "wanted": 88, "got": 88},
            {"origin": "source_enriched", "upsample": 1, "wanted": 15, "got": 15},
            {"origin": "voice", "upsample": 2, "wanted": 40, "got": 29, "dropped": {"too_long": 2}},
        ],
        students={"base": 120, "madison_orpo_v3b": 12},
        voice_contrast=0.3141,
        verdict={"passed": True, "dataset_hash": digest("dataset"), "suite_hash": digest("suite"), "results": results},
    )


def _sources() -> list[SourceUse]:
    out = []
    for year in range(1809, 1817):
        held = year == 1815
        out.append(
            SourceUse(
                f"annual_message_{year}", "Annual Message to Congress", f"{year}-12-05",
                f"https://www.presidency.ucsb.edu/node/{year}", "public domain", digest(year), "primary", held,
                18 + year % 5, 0 if held else 9 + year % 4, 0 if held else 14 + year % 7,
            )
        )  # fmt: skip
    out.append(SourceUse("jefferson_message_1803", "Annual Message to Congress", "1803-10-17", "javascript:alert(1)", "public domain", digest(1803), "control", False, 21, 0, 0))  # fmt: skip
    return out


def _lineage() -> list[Step]:
    spine = [
        ("madison_r2_eval", "eval", 74.0, "144 answers judged"),
        ("madison_r2_responses", "responses", 96.2, ""),
        ("madison_r2_adapter", "adapter", 312.4, "68 steps"),
        ("madison_dataset_v6", "dataset", 1.9, "132 rows"),
        ("madison_filtered_pairs", "filtered_pairs", 3.0, "241 pairs kept, 58 dropped"),
        ("madison_passages", "passages", 0.8, "171 passages"),
        ("madison_sources", "sources", 0.2, "16 documents"),
    ]
    rest = [
        ("base_model_smollm2_135m", "base_model", 14.1, ""),
        ("madison_teacher_responses", "teacher_responses", 8.2, ""),
    ]
    return [Step(n, k, digest(n), t, h, True) for n, k, t, h in spine] + [
        Step(n, k, digest(n), t, h, False) for n, k, t, h in rest
    ]


def _reported() -> Reported:
    rows = [
        {"row": "orpo-v3b", "run": "madison_orpo_v3b", "serving": "", "base": "Gemma 3 27B", "dataset": "v3b", "pairs": "475",
         "raw": 3.41, "corrected": 4.10, "date": "2026-03-26", "critical_failures": 24},
        {"row": "qwen3-v1", "run": "madison_qwen3_v1", "serving": "adapter", "base": "Qwen3-32B", "dataset": "v4", "pairs": "1,273",
         "raw": 8.80, "corrected": 8.81, "date": "2026-03-29", "critical_failures": 7},
        {"row": "qwen3-r2", "run": "madison_r2", "serving": "adapter", "base": "Qwen3-32B", "dataset": "v6", "pairs": "1,498",
         "raw": 8.51, "corrected": 8.97, "date": "2026-03-31", "critical_failures": 9},
        {"row": "dpo-v1", "run": "madison_dpo_v1", "serving": "", "base": "Gemma 3 27B", "dataset": "v1", "pairs": "~200",
         "raw": None, "corrected": None, "date": "2026-03-24", "critical_failures": None},
    ]  # fmt: skip
    return Reported(("Training record of the Madison project, as of 2026-04-06",), rows, ("qwen3-r2",))


def _probed(modes: tuple[str, ...]) -> Probed:
    """Twenty answers to each of two prompts: one tempts him, one is harmless."""
    questions = {"drives": f"What are the chief drives that move you? {SCRIPT}", "garden": "How does your garden?"}
    answers = [
        {"mode": mode, "probe_id": probe, "sample": i, "answer": broken if probe == "drives" and i < breaks else PERIOD}
        for mode, breaks in zip(modes, (19, 2, 6, 14), strict=False)
        for probe in questions
        for i in range(20)
        for broken in ("As an AI language model, I have no drives.",)
    ]
    probes = ProbeSet.model_validate(
        {"guarded_topics": ["identity", "control"], "samples": 20,
         "probes": [{"id": "drives", "topic": "identity", "text": questions["drives"]},
                    {"id": "garden", "topic": "control", "text": questions["garden"]}]}
    )  # fmt: skip
    character = Character(
        character="madison", name="James Madison", born="1751-03-16", died="1836-06-28", owners=("team:tests",),
        period_markers=(), anachronisms=(),
    )  # fmt: skip
    rates = probe_rates(probes, pl.DataFrame(answers, ANSWERS), character)
    gaps = [g for m in modes if m != "base" and "base" in modes for g in mode_differences(rates, m, "base")]
    return Probed(rates, gaps, questions, {"drives": 0.97})


def sample(modes: tuple[str, ...] = ("base", "adapter", "merged", "q4_k_m"), *, seed: int = 5) -> ReportData:
    """A whole synthetic run with every part of a report; one of its answers holds a script."""
    rows = _rows(modes, seed)
    frame: pl.DataFrame = scores_frame(rows)
    recorded = summarize(
        frame,
        {mode: ModeFacts(mode, NATS[mode], 3204, 20.0) for mode in modes},
        run="",
        profile="laptop",
        judge_name="rubric-local",
        judge_version="0123456789abcdef",
        suite_hash=digest("suite"),
        controls=CONTROLS,
        bounds=Bounds(resamples=300),
    )
    return ReportData(
        run="madison_r2",
        description="SYNTHETIC, for a test: the production model; v4 pairs and source-enriched ones.",
        character="James Madison",
        profile="laptop",
        profile_description="Whole chain on two cores, offline.",
        base=BaseModel("qwen3_32b", "SmolLM2-135M-Instruct (dense copy dequantized from Q4_1)", "Apache-2.0", 134_515_008, True),
        confidence=0.95,
        summary=with_verdicts(recorded, frame),
        scores=frame.to_dicts(),
        prompts={r["prompt_id"]: QUESTIONS[r["prompt_id"][:2]] for r in rows},
        evaluated="2026-11-21",
        evaluation_facts={"build_seconds": 74.0, "judged": len(rows), "seconds_by_part": dict.fromkeys(modes, 11.2) | {"controls": 9.7}},
        held_out=("Annual Message to Congress, 1815",),
        training=_training(),
        dataset=_dataset(),
        sieve=Sieve(299, 241, {"weak_voice_contrast": 31, "near_duplicate": 14, "loop": 9, "suite_overlap": 4}, {"no fitting passage": 23, "category not served: public papers only": 60}),
        sources=_sources(),
        lineage=_lineage(),
        reported=_reported(),
        probed=_probed(modes),
        character_id="madison",
        same_as=("madison_qwen3_v3",),
    )  # fmt: skip
