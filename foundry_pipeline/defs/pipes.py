"""What scripts report to Dagster, read without keeping a core awake.

    dg.PipesSubprocessClient(message_reader=PatientReader())

Dagster's own reader looks into its file a hundred times a second, which is one hundredth of a core for as long as a script
works: 10 s of processor time in a chain of 15 minutes. This one looks twice a second, and at once when the script ends. A
line is taken when it is whole.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import dagster as dg
from dagster._core.pipes.context import PipesMessageHandler
from dagster_pipes import PipesDefaultMessageWriter, PipesParams

_SECONDS = 0.5  # between two looks: progress entries come ten seconds apart


class PatientReader(dg.PipesMessageReader):
    """Messages of a script on this machine, through a temporary file; live, up to half a second late."""

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[PipesParams]:
        ended = Event()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "messages"
            file.touch()
            thread = Thread(target=_hand_on, args=(file, handler, ended), daemon=True)
            thread.start()
            try:
                yield {PipesDefaultMessageWriter.FILE_PATH_KEY: str(file)}
            finally:
                ended.set()
                thread.join()

    @property
    def expected_writer_count(self) -> int:
        return 1

    def no_messages_debug_text(self) -> str:
        return "Attempted to read messages from a local temporary file."


def lines(file: Path, ended: Event, wait: Callable[[float], bool]) -> Iterator[str]:
    """Whole lines of a file that grows, until it has `ended`; one that was begun and never finished is left out.

    `wait` returns after so many seconds, or as soon as the file has ended.
    """
    with file.open(encoding="utf-8") as stream:
        held = ""
        while True:
            last = ended.is_set()  # asked first: what was written before the end is read after it
            for part in stream:
                held += part
                if held.endswith("\n"):
                    yield held
                    held = ""
            if last:
                return
            wait(_SECONDS)


def _hand_on(file: Path, handler: PipesMessageHandler, ended: Event) -> None:
    try:
        for line in lines(file, ended, ended.wait):
            handler.handle_message(json.loads(line))
    except BaseException:
        handler.report_pipes_framework_exception("thread that reads a script's messages", sys.exc_info())
        raise
