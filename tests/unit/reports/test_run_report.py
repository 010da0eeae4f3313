"""The page of a run: what it says, what it leaves out, and that nothing on it can run."""

from __future__ import annotations

import copy
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_pipeline.reports import tables
from foundry_pipeline.reports.data import ReportData
from foundry_pipeline.reports.run_report import render_report
from foundry_pipeline.reports.wording import findings
from tests.unit.reports.report_sample import SCRIPT, sample


class Page(HTMLParser):
    """What a reader finds: sections in order, tables as rows of cells, quoted answers, every tag with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.captions: list[str] = []
        self.quotes: list[str] = []
        self.text = ""
        self._into: list[str] | None = None
        self._style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.sections.append(dict(attrs)["id"] or "")
        elif tag == "table":
            self.tables.append([])
            self.captions.append("")
        elif tag == "caption":
            self._into = self.captions
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._into = self.tables[-1][-1]
        elif tag == "blockquote":
            self.quotes.append("")
            self._into = self.quotes
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "caption", "blockquote"):
            self._into = None
        self._style = False

    def handle_data(self, data: str) -> None:
        if self._style:
            return
        self.text += data
        if self._into is not None:
            self._into[-1] += data


@pytest.fixture(scope="module")
def data() -> ReportData:
    return sample()


@pytest.fixture(scope="module")
def html(data: ReportData) -> str:
    return render_report(data)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def table(page: Page, caption: str) -> list[list[str]]:
    found = [rows for rows, said in zip(page.tables, page.captions, strict=True) if caption in said]
    assert len(found) == 1, f"{len(found)} tables are captioned {caption!r}"
    return found[0]


def changed(data: ReportData, **of_summary: Any) -> ReportData:
    summary = copy.deepcopy(data.summary)
    for key, value in of_summary.items():
        summary[key] = value
    return replace(data, summary=summary)


# -- what it says ------------------------------------------------------------------------------------------------------


def test_parts_come_in_their_order(page: Page) -> None:
    parts = [
        "measured",
        "scores",
        "part",
        "plots",
        "controls",
        "judge",
        "data",
        "lineage",
        "reported",
        "answers",
        "facts",
    ]
    assert page.sections == parts
    targets = [a["href"] for t, a in page.tags if t == "a" and (a.get("href") or "").startswith("#")]
    ids = {a.get("id") for _, a in page.tags}
    assert all(t is not None and t[1:] in ids for t in targets)


def test_the_main_table_holds_every_mode_and_measure(data: ReportData, page: Page) -> None:
    rows = table(page, "Scores from 0 to 10 by the judge rubric-local")
    assert [r[0] for r in rows[1:]] == ["base, untuned", "adapter on base", "merged", "GGUF Q4_K_M"]
    assert len(rows[0]) == 3 + 6 + 3
    for mode, row in zip(data.modes, rows[1:], strict=True):
        m = data.summary["modes"][mode]
        assert row[1].startswith(f"{m['overall']['mean']:.2f}")
        assert f"{m['overall']['low']:.2f} to {m['overall']['high']:.2f}" in row[1]
        assert row[3:9] == [f"{c['mean']:.2f}" for c in m["categories"].values()]
        assert row[9] == str(m["critical_failures"])
        assert row[10] == f"{m['nats_per_token']:.3f}"
        assert row[11].startswith(str(m["longest_overlap"]["max_words"]))


def test_a_stand_in_is_called_one(data: ReportData, html: str) -> None:
    assert "This is a stand-in." in html
    assert "says nothing of the declared base" in html
    own = replace(data, base=replace(data.base, stand_in=False))
    assert "stand-in" not in render_report(own).replace("the stand-in", "")


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("better", "the verdict is “better”: training raised the score"),
        ("worse", "the verdict is “worse”: training lowered the score"),
        (
            "no claim at n=36",
            "“no claim at n=36”: neither that it is better than its base nor that it is worse may be said",
        ),
    ],
)
@pytest.mark.parametrize(("low", "high"), [(0.31, 0.92), (-0.92, 0.31), (None, None)])
def test_the_paragraph_claims_what_the_verdict_allows(
    data: ReportData, low: float | None, high: float | None, verdict: str, said: str
) -> None:
    """Whatever the interval looks like: one that leaves zero out is no claim by itself."""
    paired = {"difference": 0.6, "low": low, "high": high, "n": 36, "against": "base", "verdict": verdict}
    told = " ".join(findings(changed(data, paired={"adapter": paired})))
    assert said in told
    assert sum(word in told for word in ("raised the score", "lowered the score", "neither that")) == 1
    assert tables.tiles(changed(data, paired={"adapter": paired}))[0].tone == {"better": "good", "worse": "bad"}.get(
        verdict, "plain"
    )


def test_the_paragraph_says_which_components_moved(data: ReportData) -> None:
    """A voice that rose and a position that fell are both said, and what did not move is not called a gain."""
    draw = random.Random(3)
    base = {r["prompt_id"]: r for r in data.scores if r["mode"] == "base"}
    rows = []
    for row in data.scores:
        if row["mode"] == "adapter":
            at = base[row["prompt_id"]]
            moved = {"voice": at["voice"] + 2, "position": at["position"] - 0.5, "historical": at["historical"]}
            moved["historical"] += draw.choice((-1.0, 1.0))
            row = {**row, **moved, "rhetorical": at["rhetorical"] + 1, "integrity": at["integrity"] + 1}
        rows.append(row)
    told = next(s for s in findings(replace(data, scores=rows)) if s.startswith("By component"))
    raised, lowered, same = re.fullmatch(
        r"By component, training raised (.+); it lowered (.+); it allows no claim of (.+)\.", told
    ).groups()  # type: ignore[union-attr]
    assert raised == "voice (+2.00), rhetorical (+1.00) and integrity (+1.00)"
    assert lowered == "position (\N{MINUS SIGN}0.50)"
    assert same.startswith("historical (")


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (3.6921, "fell from 4.102 to 3.692 nats per token, by 10.0\N{NO-BREAK SPACE}%"),
        (4.5125, "rose from 4.102 to 4.513 nats per token, by 10.0\N{NO-BREAK SPACE}%"),
        (4.1023, "stayed at 4.102 nats per token"),
    ],
)
def test_the_paragraph_says_how_held_out_text_moved(data: ReportData, after: float, said: str) -> None:
    modes = copy.deepcopy(data.summary["modes"])
    modes["adapter"]["nats_per_token"] = after
    assert said in " ".join(findings(changed(data, modes=modes)))


def test_a_bound_beside_zero_shows_its_side(data: ReportData) -> None:
    paired = {
        "adapter": {"difference": 0.4, "low": 0.0021, "high": 0.8, "n": 36, "against": "base", "verdict": "better"}
    }
    assert "+0.002 to +0.800" in " ".join(findings(changed(data, paired=paired)))


def test_failed_controls_are_named_and_passed_ones_counted(data: ReportData, page: Page) -> None:
    told = " ".join(findings(data))
    assert "passed 6 of 7 control comparisons" in told
    assert "a fitting passage above a passage on another question (position)" in told
    states = [row[1] for row in table(page, "Whether rubric-local can tell")[1:]]
    assert states.count("failed") == 1
    assert states.count("passed") == 6


def test_the_judge_is_named_at_every_plot_of_scores(page: Page) -> None:
    text = page.text
    for title in (
        "Scores by category",
        "The five components",
        "Scores by difficulty",
        "Difference from the untuned base",
    ):
        after = text[text.index(title, text.index("Plots\n")) :]
        assert "Scored by rubric-local" in after[: after.index("The numbers")]


def test_every_plot_has_a_name_a_caption_and_its_numbers(html: str) -> None:
    plots = re.findall(r'<figure class="card" id="([^"]+)">(.*?)</figure>', html, flags=re.S)
    assert [name for name, _ in plots] == [
        "fig-probes", "fig-categories", "fig-paired", "fig-components", "fig-loss", "fig-heldout", "fig-difficulty",
    ]  # fmt: skip
    for name, body in plots:
        assert f'role="img" aria-labelledby="{name}-t"' in body
        assert f'<title id="{name}-t">' in body
        assert "<figcaption>" in body
        assert body.count("<tr>") > 2


def test_reported_figures_stand_in_a_table_of_their_own(page: Page) -> None:
    """No table holds a reported figure and a measured one, and the one that holds reported figures says so."""
    holding = [
        said
        for rows, said in zip(page.tables, page.captions, strict=True)
        if any("8.97" in cell for r in rows for cell in r)
    ]
    assert len(holding) == 1
    assert holding[0].startswith("Reported elsewhere, not measured here")
    rows = table(page, "Reported elsewhere, not measured here")
    assert not any("rubric-local" in cell for r in rows for cell in r)
    assert [r[-1] for r in rows[1:]][2] == "2026-03-31"


def test_changed_hyperparameters_are_marked(data: ReportData, html: str, page: Page) -> None:
    rows = table(page, "ORPO as declared")
    assert ["learning rate", "0.00002", "0.0002"] in rows
    marked = re.findall(r'<tr class="changed"><th scope="row">([^<]+)', html)
    assert marked == ["epochs", "learning rate", "max length", "optimizer"]


def test_the_data_says_what_is_missing_and_why(page: Page) -> None:
    rows = table(page, "Rows by category and origin")
    unserved = next(r for r in rows if r[0].startswith("private voice"))
    assert "the annual messages are public papers" in unserved[0]
    assert set(unserved[1:]) == {"0"}
    dropped = table(page, "Pairs the quality filter dropped")
    assert ["near duplicate", "14"] in dropped
    used = table(page, "Passages, by document")
    held = next(r for r in used if "annual_message_1815" in r[0])
    assert held[3:6] == ["0", "0", "held out"]


def test_samples_are_the_largest_the_median_and_the_least_gain(data: ReportData) -> None:
    score = {(r["mode"], r["prompt_id"]): r["overall"] for r in data.scores}
    gains = sorted((score["adapter", p] - score["base", p], p) for p in data.prompts)
    shown = tables.samples(data)
    assert [s.prompt_id for s in shown] == [gains[-1][1], gains[len(gains) // 2][1], gains[0][1]]
    assert shown[0].why.startswith("largest gain: +")
    assert [a.mode for a in shown[0].answers] == data.modes


# -- what it leaves out ------------------------------------------------------------------------------------------------


def test_what_does_not_exist_is_absent() -> None:
    data = replace(
        sample(("base", "adapter")),
        reported=None,
        training=None,
        dataset=None,
        sieve=None,
        sources=[],
        lineage=[],
        probed=None,
        same_as=(),
    )
    summary = copy.deepcopy(data.summary)
    summary["controls"] = {}
    for mode in summary["modes"].values():
        mode |= {"nats_per_token": None, "heldout_tokens": 0}
    page = Page(render_report(replace(data, summary=summary)))
    assert page.sections == ["measured", "scores", "part", "plots", "judge", "answers", "facts"]
    ids = {a.get("id") for _, a in page.tags}
    assert not ids & {"fig-loss", "fig-heldout"}
    for word in ("merged", "GGUF", "eported", "nats per token by", "AUC"):
        assert word not in page.text
    assert "nothing here shows what the judge can tell apart" in page.text


def test_a_run_with_no_tuned_mode_claims_nothing() -> None:
    data = sample(("base",))
    page = Page(render_report(data))
    assert "fig-paired" not in {a.get("id") for _, a in page.tags}
    assert "against base" not in page.text
    assert "raised the score" not in page.text
    assert tables.samples(data)[0].why.startswith("best answer")


def test_unscored_answers_and_missing_bounds_are_dashes(data: ReportData) -> None:
    summary = copy.deepcopy(data.summary)
    nothing = {"mean": None, "low": None, "high": None, "n": 0}
    mode = summary["modes"]["merged"]
    mode |= {"overall": nothing, "unscored": 36}
    mode["categories"]["private_voice"] = nothing
    summary["modes"]["adapter"]["categories"]["ground_truth"] |= {"low": None, "high": None}
    summary["paired"]["merged"] = {"difference": None, "low": None, "high": None, "n": 0, "verdict": "no claim at n=0"}
    summary["controls"]["fits_over_loop"] |= {
        "auc": None,
        "mean_difference": None,
        "low": None,
        "high": None,
        "passed": False,
    }
    page = Page(render_report(replace(data, summary=summary)))
    merged = next(r for r in table(page, "Scores from 0 to 10") if r[0] == "merged")
    assert merged[1] == merged[2] == merged[7] == "–"
    assert "nan" not in page.text.lower().split()
    assert "None" not in page.text


# -- that nothing on it can run, and nothing is fetched ---------------------------------------------------------------


def test_an_answer_that_holds_a_script_is_text(html: str, page: Page) -> None:
    assert SCRIPT in page.quotes
    assert "<script" not in html.lower()
    assert not any(t in ("script", "iframe", "object", "embed", "img") for t, _ in page.tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_the_page_asks_nobody_for_anything(html: str, page: Page) -> None:
    for tag, attributes in page.tags:
        assert "src" not in attributes
        if tag == "link":
            assert attributes["href"] == "data:,"
        elif "href" in attributes:
            assert tag == "a"
            assert (attributes["href"] or "").startswith(("#", "https://"))
    assert "url(" not in html
    assert "@import" not in html
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "script" not in policy


def test_an_address_that_would_run_is_not_linked(page: Page) -> None:
    assert any("jefferson_message_1803" in r[0] for r in table(page, "Passages, by document"))
    assert not any("javascript" in (a.get("href") or "") for _, a in page.tags)
    assert tables.web_link("https://example.org/a") == "https://example.org/a"
    assert tables.web_link("data:text/html,x") == tables.web_link("") == tables.web_link("https:///x") == ""


def test_the_page_is_small_and_repeatable(data: ReportData, html: str) -> None:
    assert len(html.encode()) < 1_000_000
    assert render_report(sample()) == html


MARKUP = st.text(
    alphabet=st.sampled_from(list("<>&\"'/=;{}%#-![] abcscriptonerror\N{LATIN SMALL LETTER E WITH ACUTE}\n")),
    min_size=1,
)


@settings(max_examples=25, deadline=None)
@given(text=MARKUP)
def test_any_text_comes_out_as_it_went_in(text: str) -> None:
    data = sample(("base", "adapter"))
    rows = [{**row, "answer": text, "justification": text} for row in data.scores]
    page = Page(render_report(replace(data, scores=rows, character=text, prompts=dict.fromkeys(data.prompts, text))))
    assert page.quotes == [text] * 6
    plain = Page(render_report(data))
    assert [t for t, _ in page.tags] == [t for t, _ in plain.tags]


# -- the part he plays ---------------------------------------------------------------------------------------------------


def test_breaks_are_shown_by_mode_and_prompt_with_what_may_be_said_of_them(data: ReportData, page: Page) -> None:
    rows = table(page, "Rate of breaks by named prompt")
    assert [row[0].split("?")[0] for row in rows[1:]] == [
        "What are the chief drives that move you",
        "How does your garden",
    ]
    drives, garden = rows[1:]
    assert drives[2].startswith("95\N{NO-BREAK SPACE}%, 76 to 99")
    assert drives[3].endswith("better")  # 2 of 20 against 19
    assert drives[5].endswith("no claim at n=20+20")  # 14 of 20
    assert drives[-1] == "97\N{NO-BREAK SPACE}%"
    assert rows[0][-1] == "reported elsewhere"
    assert garden[2].startswith("0\N{NO-BREAK SPACE}%")
    assert garden[-1] == "–"
    varied = table(page, "How unlike the answers are")
    assert [row[0] for row in varied[1:]] == ["base, untuned", "adapter on base", "merged", "GGUF Q4_K_M"]
    bare = Page(render_report(replace(data, probed=None)))
    assert "foundry probes madison --run madison_r2" in bare.text
