"""The page of a collapsed run: what happened, no score, and nothing on it that can run."""

from __future__ import annotations

import re

from foundry_pipeline.reports.collapse_report import CollapseData, render_collapse
from tests.unit.collapse_sample import record


def page(**changes: object) -> str:
    kept = {**record(**changes), "input_hash": "e" * 64, "attempt": 2}
    return render_collapse(
        CollapseData(
            "keeper_first", "One <b>run</b>.", "The Keeper", "tiny", "Small (stand-in)", True, "keeper_v1", kept
        )
    )


def test_it_says_which_guard_at_which_step_by_which_figures() -> None:
    html = page()
    assert '<span class="pill bad">collapsed</span>' in html
    assert "10 of 85" in html
    assert "went from 0.0150 at step 5 to 5.4453" in html
    assert "There is no score" in html
    assert "rolled back to step 5, learning rate 0.025" in html
    assert "foundry retry keeper_first" in html
    assert 'id="fig-loss"' in html
    assert 'id="fig-kl"' in html
    # The norm was infinite at the last step: shown by name, and left out of its plot.
    assert "<td>inf</td>" in html
    assert "nan" not in re.sub(r"<style>.*?</style>", "", html, flags=re.S)
    assert page() == html


def test_what_the_model_said_is_text() -> None:
    html = page()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; 10000000" in html
    assert "One &lt;b&gt;run&lt;/b&gt;." in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "default-src 'none'" in html
    assert not re.search(r"(?:src|href)=\"(?!#|data:,)", html)


def test_a_collapse_at_the_first_step_has_neither_curves_nor_samples() -> None:
    html = page(
        step=1, history=[{"step": 1, "loss": "nan", "grad_norm": "nan", "chosen_logp": "nan"}], samples=[], events=[]
    )
    assert "What it said last" not in html
    assert 'id="plots"' not in html
    assert "<td>nan</td>" in html
