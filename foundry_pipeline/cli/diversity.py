"""`foundry diversity RUN`: how unlike a run's answers are to each other, in every serving mode."""

from __future__ import annotations

import statistics
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foundry_pipeline.cli import show
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import load_settings

COLUMNS = ("distinct_1", "distinct_2", "distinct_3", "self_bleu", "semantic_diversity")


def diversity(
    run: Annotated[str, typer.Argument(help="a declared run, or run:mode")],
    bar: Annotated[float, typer.Option(min=0, max=10, help="overall from which an answer passes (for pass@k)")] = 6.0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Distinct n-grams, self-BLEU and semantic diversity of the judged answers; pass@k where a prompt has several.

    Every mode is measured over the same number of words an answer, the smallest median of any mode.
    """
    from foundry_pipeline.chain.comparison import find_modes
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.corpus.minilm import load_encoder
    from foundry_pipeline.evaluation import diversity as measure
    from foundry_pipeline.textstats import words

    d, chain = load_chain(load_settings())
    sides = find_modes(d, chain, run)
    length = min(int(statistics.median(len(words(a)) for a in s.rows["answer"])) for s in sides)
    encoder = load_encoder(d.profile.threads)
    rows = []
    for side in sides:
        answers: dict[str, list[str]] = {}
        counts: dict[str, list[bool]] = {}
        for row in side.rows.sort("prompt_id", "answer").iter_rows(named=True):
            answers.setdefault(row["prompt_id"], []).append(row["answer"])
            if row["overall"] is not None:
                counts.setdefault(row["prompt_id"], []).append(row["overall"] >= bar and not row["critical_failures"])
        tries = [(len(good), sum(good)) for good in counts.values()]
        passes = {
            f"pass_at_{k}": measure.mean_pass_at_k(tries, k)
            for k in (1, 2, 5, 10)
            if tries and k <= min(n for n, _ in tries)
        }
        found = measure.diversity(answers, encoder, words_each=max(1, length))
        rows.append({"name": side.name, "judge": side.judge, "bar": bar, **found, **passes})
    show.json_or(as_json, rows, _view)


def _view(rows: list[dict[str, Any]]) -> None:
    table = Table(
        title=f"diversity of answers, of the first {rows[0]['words_each']} words of each; passing from {rows[0]['bar']:g}",
        title_justify="left",
    )
    passes = [key for key in rows[0] if key.startswith("pass_at_")]
    for head in ("served as", "answers", "of", *(c.replace("_", "-", 1).replace("_", " ") for c in COLUMNS)):
        table.add_column(head, no_wrap=True)
    for key in passes:
        table.add_column(key.replace("pass_at_", "pass@"), no_wrap=True)
    for row in rows:
        for kind in ("across", "within"):
            if row[kind] is not None:
                figures = [row[kind][c] for c in COLUMNS] + [row.get(p) if kind == "across" else None for p in passes]
                of = "different prompts" if kind == "across" else "one prompt"
                cells = [row["name"], str(row["answers"]), of, *("–" if v is None else f"{v:.3f}" for v in figures)]
                table.add_row(*(Text(plain(c)) for c in cells))
    show.console().print(table)


def register(app: typer.Typer) -> None:
    app.command()(diversity)
