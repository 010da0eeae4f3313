"""The `foundry` command: what has been measured, from which data, and how the project stands."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from foundry_pipeline.cli import (
    audit,
    backfill,
    blind,
    collapses,
    compare_runs,
    database,
    datasets,
    diversity,
    docs,
    figures,
    join_training,
    judge,
    ladder,
    models,
    money,
    pairs,
    plan,
    probes,
    replay,
    seeds,
    serving,
    show,
    sources,
    store,
)
from foundry_pipeline.cli import scores as ledger_scores
from foundry_pipeline.cli import trace as lineage_trace
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.settings import load_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


@app.command()
def check() -> None:
    """Read every declaration, check every cross-reference, say what is declared."""
    from foundry_pipeline.chain.graph import count_assets, load_chain

    settings = load_settings()
    d, chain = load_chain(settings)
    prompts = sum(len(c.training_prompts) for c in d.characters.values())
    show.line(
        f"profile {d.profile.profile}: {len(d.characters)} characters, {prompts} training prompts, "
        f"{len(d.datasets)} datasets, {len(d.declared_runs)} runs, {count_assets(chain)} assets; every reference holds"
    )


@app.command()
def status(as_json: AsJson = False) -> None:
    """Which assets are built for the present declarations."""
    from foundry_pipeline.chain.collapses import collapsed_stage
    from foundry_pipeline.chain.graph import load_chain

    _, chain = load_chain(load_settings())
    memo: dict[str, Any] = {}
    rows = []
    for name, stage in chain.stages.items():
        found = chain.resolve(name, memo)
        rows.append(
            {
                "asset": name,
                "kind": stage.kind,
                "built": found.record is not None,
                "content": found.record.content_hash if found.record else None,
                "missing": list(found.missing),
                "collapsed": collapsed_stage(chain, found),
            }
        )
    show.json_or(as_json, rows, show.status_table)


@app.command(name="eval")
def evaluate(
    run: Annotated[str, typer.Argument(help="a declared run, such as madison_r2")],
    fresh: Annotated[bool, typer.Option("--fresh", help="judge the recorded answers anew")] = False,
    as_json: AsJson = False,
) -> None:
    """Judge a run's recorded answers. Equal inputs reuse every judgment unless --fresh is given."""
    from foundry_pipeline.chain import evaluate as judging

    done, added, repeated = judging.evaluate(load_settings(), run, fresh=fresh)
    show.json_or(as_json, judging.summary(done), show.summary_table)
    if not as_json:
        how = "reused every judgment" if done.reused else f"judged anew in {done.seconds:.1f} s"
        same = (
            ""
            if repeated is None
            else "; the scores are the same as before"
            if repeated
            else "; the scores DIFFER from those before"
        )
        show.line(f"{how}; {added} rows added to the ledger{same}")


@app.command()
def report(run: Annotated[str, typer.Argument(help="a declared run, such as madison_r2")]) -> None:
    """Write the report of an evaluated run and print its score table and where report and ledger are."""
    from foundry_pipeline.chain import evaluate as judging
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.lineage.ledger_database import shown
    from foundry_pipeline.reports.run_report import write_report

    settings = load_settings()
    d, chain = load_chain(settings)
    judging.known_run(d, run)
    if collapses.report(chain, d, run):
        return
    done = chain.require(f"{run}_eval")
    show.summary_table(judging.summary(done))
    show.line(f"report: {write_report(chain, d, run)}")
    show.line(f"ledger: {shown(settings.ledger_url)}")


@app.command()
def doctor(
    profile: Annotated[
        str | None, typer.Option(help="look at what this profile needs (FOUNDRY_PROFILE otherwise)")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What is installed, locked and missing; frees what a killed run left locked."""
    from foundry_pipeline.cli.doctor import examine

    found = examine(profile)
    show.json_or(as_json, found, show.doctor_table)
    if not found["healthy"]:
        raise typer.Exit(1)


@app.command()
def repair(
    target: Annotated[
        str,
        typer.Argument(
            help="an asset or a content hash whose stored copy is damaged; or index, responses, money, ledger"
        ),
    ],
) -> None:
    """Set what is damaged aside: an artifact is built anew by the next command, the index and the databases are written
    anew from what is whole and from their second copies. Nothing is deleted; what is whole is kept.
    """
    from foundry_pipeline.cli.doctor import set_aside

    for text in set_aside(target):
        show.line(text)


ledger_scores.register(app)
lineage_trace.register(app)
replay.register(app)
datasets.register(app)
models.register(app)
money.register(app)
serving.register(app)
collapses.register(app)
plan.register(app)
join_training.register(app)
ladder.register(app)
backfill.register(app)
docs.register(app)
compare_runs.register(app)
figures.register(app)
probes.register(app)
seeds.register(app)
diversity.register(app)
blind.register(app)
app.add_typer(database.app, name="database")
audit.register(app)
app.add_typer(sources.app, name="sources")
app.add_typer(pairs.app, name="pairs")
app.add_typer(judge.app, name="judge")
app.add_typer(store.app, name="store")


def main() -> None:
    """Entry point: a failure that a user can act on is shown as such, with exit code 1."""
    try:
        app()
    except FoundryError as error:
        print(show.told(error), file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:
        raise SystemExit(141) from None
