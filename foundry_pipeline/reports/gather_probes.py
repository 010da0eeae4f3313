"""The last answers to a character's probes, as rates: `foundry probes` asks, and a report shows what it finds."""

from __future__ import annotations

from foundry_pipeline.chain.engine import Chain, Resolved
from foundry_pipeline.chain.probing import probe_answers
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.assets import Run
from foundry_pipeline.evaluation.probes import mode_differences, probe_rates
from foundry_pipeline.evaluation.reported import check_figures
from foundry_pipeline.lineage.named import records_named
from foundry_pipeline.reports.data import BASE_MODE, Probed


def gather_probes(d: Declarations, chain: Chain, run: Run) -> Probed | None:
    """The last answers to the character's probes by what the run serves now; None where there are none."""
    files = d.characters[run.character]
    if files.probes is None:
        return None
    memo: dict[str, Resolved] = {}
    for record in reversed(records_named(chain.store, f"{run.run}_probes")):
        now = {name: chain.resolve(name, memo).record for name in record.inputs if name in chain.stages}
        if any((r := now.get(name)) is None or r.content_hash != way["content"] for name, way in record.inputs.items()):
            continue
        answers = probe_answers(chain.store.open(record.content_hash, name=record.name))
        if set(answers["probe_id"]) != {p.id for p in files.probes.probes}:
            continue  # asked before the probes were declared as they are now
        rates = probe_rates(files.probes, answers, files.character)
        modes = list(dict.fromkeys(r["mode"] for r in rates))
        gaps = [
            g for m in modes if m != BASE_MODE and BASE_MODE in modes for g in mode_differences(rates, m, BASE_MODE)
        ]
        told = {}
        if any(p.reported for p in files.probes.probes):
            known = check_figures(d.figures, {n: c.reported_scores for n, c in d.characters.items()})
            figures = {c.figure: c.told for c in known}
            told = {p.id: figures.get(p.reported) for p in files.probes.probes if p.reported}
        return Probed(rates, gaps, {p.id: p.text for p in files.probes.probes}, told)
    return None
