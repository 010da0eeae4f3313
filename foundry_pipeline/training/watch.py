"""The guards of a training at work: measure after a step, judge, and act on the verdict.

    watch = Watch(spec, mark, state, examples, tokenizer, team, session, steps)
    if wrong := watch.look(state, last=False):     # None: go on; warnings have been told
        watch.heed(wrong, state, seconds)          # `state` is an earlier one now, or Collapsed is raised

Every process of a team measures its share and holds the same figures, so all come to the same verdict by themselves.
What is measured goes into the history's row of its step; warnings and roll-backs go into `state.events`. Both are part
of a checkpoint, and all verdicts follow from the history, so a training that is killed and resumed ends as it would
have. One that collapsed leaves `work/collapse.json`:

    {"rule": "kl", "step": 5, "told": "the KL divergence from the base went from …", "history": […], "samples": […], …}
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foundry_pipeline.declarations.guards import UNGUARDED, Guards
from foundry_pipeline.errors import Collapsed
from foundry_pipeline.launch import ScriptSession, read_json, write_json
from foundry_pipeline.training.checkpoints import last_usable
from foundry_pipeline.training.guards import Finding, judge, probe_figures
from foundry_pipeline.training.loop import State
from foundry_pipeline.training.plan import Hyperparameters
from foundry_pipeline.training.probes import Distance, probe_rows, sample
from foundry_pipeline.training.team import Team
from foundry_pipeline.training.tokens import Example

RECORD = "collapse.json"
WARNED, ROLLED_BACK = "warned", "rolled back"


class Watch:
    """Guards over one training, in one process of its team; the one with a session (rank 0) speaks and writes.

    A spec without `guards` is watched for finite numbers alone. `seconds` is what watching has cost so far.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        mark: str,
        state: State,
        examples: Sequence[Example],
        tokenizer: Any,
        team: Team,
        session: ScriptSession | None,
        steps: int,
    ) -> None:
        started = time.monotonic()
        self.guards = Guards.model_validate(spec["guards"]) if "guards" in spec else UNGUARDED
        self._spec, self._mark, self._steps, self._team, self._session = spec, mark, steps, team, session
        self._values = Hyperparameters(**spec["effective"])
        self._tokenizer = tokenizer
        self._rows: list[Example] = []
        self._distance: Distance | None = None
        if (kl := self.guards.kl) is not None:
            rows = probe_rows(examples, kl.pairs)
            self._distance = Distance(state.model, rows, kl.tokens, self._values.precision, team)
        if self.guards.probes is not None:
            self._rows = probe_rows(examples, self.guards.probes.prompts)
            self._asked = _prompts(Path(spec["dataset_parquet"]))
        self.seconds = time.monotonic() - started

    def look(self, state: State, *, last: bool) -> Finding | None:
        """Measure and judge the step just taken. Returns what forbids to go on from here; warnings are told and kept.

        `last` says that it was the training's last step, after which everything is measured.
        """
        started = time.monotonic()
        self._measure(state, last)
        found = judge(state.history, self.guards)
        for finding in found:
            # Once each: a rule that goes on firing says nothing new.
            if finding.action == "warn" and not any(event["rule"] == finding.rule for event in state.events):
                state.events.append({**_plain(asdict(finding)), "done": WARNED})
                self._say(f"warning at step {finding.step}: {finding.told}")
        self.seconds += time.monotonic() - started
        return next((finding for finding in found if finding.action != "warn"), None)

    def heed(self, wrong: Finding, state: State, seconds: float) -> None:
        """Roll the state back to the last good checkpoint where the guard asks for that, else give the training up.

        A checkpoint is written only after the guards of its step had nothing against going on. What its last update did
        shows a step later, though: one that was gone back to before, and went wrong again, gives way to the one before
        it. Raises Collapsed, after the record is written and the checkpoints, which nobody will take up, are gone.
        """
        checkpoints = Path(self._spec["work"]) / "checkpoints"
        if wrong.action == "roll_back" and _count(state, ROLLED_BACK) < self.guards.roll_back.times:
            step = self._last_good(checkpoints, {event["to_step"] for event in state.events if "to_step" in event})
            if step is not None:
                self._go_on_from(state, checkpoints / f"step-{step}", wrong)
                return
        if wrong.rule != "not_finite" and "distinct_2" not in state.history[-1]:
            self._take_samples(state)  # for whoever reads the record: what it has come to say
        record = self._record(wrong, state, seconds)
        if self._session:
            write_json(Path(self._spec["work"]) / RECORD, record)
            shutil.rmtree(checkpoints, ignore_errors=True)
        raise error_of(record)

    def facts(self, state: State) -> dict[str, Any]:
        """What the guards of a finished training saw, for its manifest."""
        measured = [row["kl"] for row in state.history if "kl" in row]
        return {
            "guards": {
                "rules": self.guards.model_dump(mode="json"),
                "events": state.events,
                "samples": state.samples,
                "seconds": round(self.seconds, 3),
            },
            "guard_warnings": _count(state, WARNED),
            "roll_backs": _count(state, ROLLED_BACK),
            **({"kl_to_base": measured[-1]} if measured else {}),
        }

    def _say(self, message: str) -> None:
        if self._session:
            self._session.log(message)

    def _measure(self, state: State, last: bool) -> None:
        row, kl, probes = state.history[-1], self.guards.kl, self.guards.probes
        if not (math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])):
            return  # the weights are no numbers any more
        # What a roll-back would go back to has to be known to be good when it is written.
        all_due = last or (self.guards.rolls_back and state.step % self._spec["save_every_steps"] == 0)
        if kl is not None and self._distance is not None and (all_due or state.step % kl.every_steps == 0):
            row["kl"] = self._distance.kl(state.model)
        if probes is not None and (all_due or state.step % probes.every_steps == 0):
            self._take_samples(state)

    def _take_samples(self, state: State) -> None:
        """Sample the probes' answers, and put their figures into the last row."""
        probes = self.guards.probes
        if probes is None:
            return
        answers = sample(state.model, self._rows, probes, self._values.precision, self._team)
        state.history[-1] |= probe_figures(answers, [min(len(row.chosen), probes.max_tokens) for row in self._rows])
        state.samples = [
            {"prompt": self._asked[row.pair_id], "answer": self._tokenizer.decode(answer, skip_special_tokens=True)}
            for row, answer in zip(self._rows, answers, strict=True)
        ]

    def _last_good(self, checkpoints: Path, tried: set[int]) -> int | None:
        """Step of the last whole checkpoint that was not gone back to before: rank 0 reads it, and tells the others.

        The oldest one there is may be tried again, at a still lower rate.
        """
        import torch

        last = last_usable(checkpoints, self._mark, self._session.log) if self._session else None
        if last and last.step in tried and len(list(checkpoints.glob("step-*"))) > 1:
            shutil.rmtree(last.folder)
            last = last_usable(checkpoints, self._mark, lambda _: None)
        step = torch.tensor(0 if not self._session else last.step if last else -1)
        self._team.add(step)
        return int(step) if int(step) >= 0 else None

    def _go_on_from(self, state: State, checkpoint: Path, wrong: Finding) -> None:
        """Take up the state of an earlier step, at a lower learning rate; what has happened stays told."""
        events = state.events
        times = 1 + _count(state, ROLLED_BACK)
        state.restore(checkpoint)
        rate = self._values.learning_rate * self.guards.roll_back.rate_factor**times
        state.set_rate(rate)
        event = {**_plain(asdict(wrong)), "done": ROLLED_BACK, "to_step": state.step, "learning_rate": rate}
        state.events = [*events, event]
        self._say(f"step {wrong.step}: {wrong.told}; going on from step {state.step}, learning rate {rate:.3g}")

    def _record(self, wrong: Finding, state: State, seconds: float) -> dict[str, Any]:
        kept = ("run", "method", "declared", "effective", "guards", "seed", "base_hash", "dataset_hash")
        return {
            **{name: self._spec.get(name) for name in kept},
            **_plain(asdict(wrong)),
            "fingerprint": self._mark,
            "steps": self._steps,
            "history": _plain(state.history),
            "events": state.events,
            "samples": state.samples,
            "seconds": round(seconds, 3),
        }


def _prompts(parquet: Path) -> dict[str, str]:
    """Prompt of each pair, in words."""
    import polars as pl

    return dict(pl.read_parquet(parquet, columns=["pair_id", "prompt"]).iter_rows())


def _count(state: State, done: str) -> int:
    return sum(event["done"] == done for event in state.events)


def error_of(record: dict[str, Any]) -> Collapsed:
    """A collapse as the error that a user reads."""
    run, values = record["run"], record["effective"]
    back = sum(event["done"] == ROLLED_BACK for event in record["events"])
    again = f", after {back} roll-back{'s' if back > 1 else ''}" if back else ""
    return Collapsed(
        f"{run} collapsed at step {record['step']} of {record['steps']}{again}: {record['told']} "
        f"(guard `{record['rule']}`; learning rate {values['learning_rate']:g}, LoRA rank {values['lora_rank']})",
        where=f"assets/runs/{run}.yaml, or the block it inherits: `learning_rate`, `lora_rank`, `guards`",
        mend=f"lower `learning_rate` there, then run the same command; `foundry collapse {run}` shows what holds",
    )


def known_collapse(work: Path, mark: str) -> dict[str, Any] | None:
    """The record of an earlier collapse of this very training in this folder; clears away anything else's."""
    file = work / RECORD
    if file.is_file():
        record: dict[str, Any] = read_json(file)
        if record.get("fingerprint") == mark:
            return record
        file.unlink()
    return None


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: what is not finite by its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
