"""The report's section on serving: present when there is something to say, and text whatever the text is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from foundry_pipeline.declarations.parity import Parity
from foundry_pipeline.export.parity_verdict import judge, passed
from foundry_pipeline.reports.data import Served
from foundry_pipeline.reports.run_report import render_report
from foundry_pipeline.reports.serving import HEAD, delta_rows, matrix_cells, matrix_markdown, size
from tests.unit.reports.report_sample import SCRIPT, sample

ROW: dict[str, Any] = {
    "mode": "q4_k_m",
    "answers": 36,
    "overall": 5.93,
    "overall_low": 5.71,
    "overall_high": 6.21,
    "difference": 2.93,
    "difference_low": 2.55,
    "difference_high": 3.26,
    "critical_failures": 0,
    "break_rate": 0.0278,
    "nats_per_token": 3.678,
    "mean_kl": 0.0412,
    "p99_kl": 0.31,
    "top1": 0.887,
    "bytes": 105_453_952,
    "tokens_per_second": 197.5,
}
UNKNOWN = dict.fromkeys(ROW) | {"mode": "f16", "answers": 0, "bytes": 270_885_760, "mean_kl": 0.00002}
NEAR = {"mean_kl": 0.001, "median_kl": 0.0, "p99_kl": 0.01, "max_kl": 0.02, "top1": 0.99, "nats_change": 0.0}
MEASURED: dict[str, Any] = {
    "reference": {"mode": "adapter", "precision": "float32"},
    "text": {"prompts": 8, "tokens": 512, "from": "held-out passages"},
    "prompts": {"asked": 36, "modes": {"merged": {"differing": 0, "which": []}}},
    "ends": {
        "reference": [2],
        "markers": [],
        "modes": {
            "merged": {"declared": 2, "ends": [2], "forced": {"2": "stop"}},
            "q8_0": {"declared": 2, "ends": [2], "forced": {"2": f"went on: {SCRIPT}"}},
        },
    },
    "distance": dict.fromkeys(("adapter", "merged", "f16", "q8_0", "q5_k_m", "q4_k_m"), NEAR),
    "merge": {"tensors": 210, "worst_steps": 0, "differing": 0.0, "changed_elsewhere": [], "misplaced": []},
    "deltas": {
        "merged": {"tensors": 210, "below": 0, "ratio": 2.2, "kept": 1.0},
        "q4_k_m": {"tensors": 210, "below": 210, "ratio": 0.04, "kept": 0.97},
    },
}


def verdict() -> dict[str, Any]:
    results = judge(MEASURED, Parity())
    return {"gguf": "madison_r2_gguf", "gguf_hash": "ab" * 32, "passed": passed(results), "results": results}


def test_the_matrix_the_verdict_and_the_delta_stand_on_the_page() -> None:
    page = render_report(replace(sample(), served=Served([ROW, UNKNOWN], MEASURED, verdict())))
    assert page == render_report(replace(sample(), served=Served([ROW, UNKNOWN], MEASURED, verdict())))
    for text in (*HEAD, "105.5 MB", "88.7", "512 tokens of held-out passages", "210 of 210 tensors", "madison_r2_gguf"):
        assert text in page
    assert "forced end stops" in page
    assert SCRIPT not in page
    assert "&lt;script&gt;" in page


def test_without_a_matrix_there_is_no_section_and_without_a_verdict_no_table_of_checks() -> None:
    assert 'id="serving"' not in render_report(sample())
    page = render_report(replace(sample(), served=Served([], MEASURED, None)))
    assert "beside what rounding or quantizing" in page
    assert "Export parity" not in page
    assert "Serving matrix" not in page


def test_what_is_not_known_is_a_dash() -> None:
    assert matrix_cells(UNKNOWN).count("\N{EN DASH}") == 8
    assert "0.0000200" in matrix_cells(UNKNOWN)
    assert matrix_markdown([ROW, UNKNOWN]).count("\n") == 3
    assert delta_rows({"deltas": {"f16": {"tensors": 2, "below": 0, "ratio": None, "kept": None}}}) == [
        ("GGUF F16", "no step", "0 of 2 tensors", "\N{EN DASH}")
    ]
    assert (size(64_200_000_000), size(None)) == ("64.2 GB", "\N{EN DASH}")


def test_a_failed_verdict_is_told_as_one() -> None:
    found = {r["name"]: r for r in verdict()["results"]}
    assert not verdict()["passed"]
    assert {n for n, r in found.items() if not r["passed"]} == {"forced_end_stops", "delta_above_quantization_step"}
    assert found["delta_above_quantization_step"]["observed"].endswith(
        "nearest to what was trained, and smallest: merged"
    )
