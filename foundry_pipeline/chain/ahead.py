"""Stages that this process makes by itself, made while it waits for a script.

    run_script = beside(run_script, chain, ["madison_sources", "madison_passages", "madison_teacher_responses"], log=…)
    chain.materialize("base_model_smollm2_135m", run_script=run_script, …)      # and the three are there as well

A base model is unpacked by one thread of a child and needs nothing; the character's texts need no model. One after the
other they took 35 s of `make madison` on two cores, side by side 20.

Nothing else changes: an artifact is found by its inputs, so the asset of a stage that was made ahead finds it, and that of
one which was not makes it. An error is met again, and told, by the asset whose it is. The thread ends before the script's
asset does; where the run is interrupted, at once, as if it had been killed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.stage import Kind
from foundry_pipeline.launch import ScriptRunner

HERE: tuple[Kind, ...] = ("sources", "passages", "teacher_responses")
"""Kinds that may be made ahead: no model of the chain and, with the character's own words as teacher, no script either."""


_PATIENCE = 10.0  # seconds for a library to come back from what it is at


class _Interrupted(BaseException):
    """Raised in the thread when the run is interrupted."""


class _NeedsScript(Exception):
    """A stage that was tried ahead wants a script, such as a teacher that is a model: it waits for its turn."""


def beside(
    run_script: ScriptRunner,
    chain: Chain,
    names: Iterable[str],
    *,
    log: Callable[[str], None],
    manifest: Callable[[], dict[str, Any]] = dict,
) -> ScriptRunner:
    """`run_script`, with those of the named stages made meanwhile that are of a kind in HERE, lack nothing but each other,
    and have not been made; `log` is told which, after the script has ended."""
    wanted = [name for name in in_order(chain, names) if chain.stages[name].kind in HERE]
    if not wanted:
        return run_script

    def run(module: str, spec: Mapping[str, Any], work: Path) -> None:
        told: list[str] = []
        thread = Thread(target=_make, args=(chain, wanted, manifest, told), name="made ahead", daemon=True)
        thread.start()
        failure: Exception | None = None
        try:
            try:
                run_script(module, spec, work)
            except Exception as error:
                failure = error  # the run goes on with assets that do not need this one, and they must find no lock
            thread.join()
        except BaseException:
            _stop(thread)
            raise
        if failure is not None:
            raise failure
        for line in told:
            log(f"meanwhile: {line}")

    return run


def in_order(chain: Chain, names: Iterable[str]) -> list[str]:
    """The names with every stage behind its inputs.

    >>> in_order(chain, ["madison_passages", "madison_sources"])
    ['madison_sources', 'madison_passages']
    """
    asked, out = set(names), list[str]()

    def visit(name: str) -> None:
        if name in asked and name not in out:
            for needed in chain.stages[name].inputs:
                visit(needed)
            out.append(name)

    for name in sorted(asked):
        visit(name)
    return out


def _stop(thread: Thread) -> None:
    """End a thread at its next step of Python. One that is in a numeric library while Python ends aborts the process."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Interrupted))
    thread.join(_PATIENCE)


def _make(chain: Chain, names: Iterable[str], manifest: Callable[[], dict[str, Any]], told: list[str]) -> None:
    for name in names:
        try:
            if chain.resolve(name).record is None:
                done = chain.materialize(name, run_script=_refuse, log=told.append, manifest=manifest)
                told.append(f"{name} {done.artifact.content_hash[:12]} built in {done.seconds:.1f} s")
        except (Exception, _Interrupted):
            # Whatever it is, the stage's own asset meets it again, and tells it where it belongs.
            return


def _refuse(module: str, spec: Mapping[str, Any], work: Path) -> None:
    raise _NeedsScript(module)
