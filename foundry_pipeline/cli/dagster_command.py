"""The `dagster` command of this environment: Dagster's own, with this project as its default target.

`dagster asset materialize` refuses to start without a pointer to code. The pointer can be given by `-m` or by the
environment variable `DAGSTER_MODULE_NAME`, but a variable set for good makes `-f` and `-w` of other commands fail,
`.env` is read too late for it and `[tool.dagster]` not at all. So the pointer is added here, for the commands that need
one, and only when the user gave none. Everything else goes to Dagster untouched.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from foundry_pipeline.errors import FoundryError

MODULE = "foundry_pipeline.definitions"
# Commands that take a Python pointer and no workspace.
NEEDS_POINTER = {("asset", "materialize"), ("asset", "list"), ("job", "execute")}
POINTER_OPTIONS = (
    "-m",
    "-f",
    "-a",
    "--module-name",
    "--python-file",
    "--package-name",
    "--attribute",
    "--autoload-defs-module-name",
)
POINTER_VARIABLES = ("DAGSTER_MODULE_NAME", "DAGSTER_PYTHON_FILE", "DAGSTER_PACKAGE_NAME")


def with_pointer(arguments: Sequence[str], environment: dict[str, str]) -> list[str]:
    """The command line with `-m foundry_pipeline.definitions` added where one is needed and none is given.

    >>> with_pointer(["asset", "materialize", "--select", "x"], {})
    ['asset', 'materialize', '-m', 'foundry_pipeline.definitions', '--select', 'x']
    >>> with_pointer(["asset", "list", "-f", "other.py"], {})
    ['asset', 'list', '-f', 'other.py']
    """
    given = list(arguments)
    if tuple(given[:2]) not in NEEDS_POINTER or any(environment.get(v) for v in POINTER_VARIABLES):
        return given
    if any(a == o or a.startswith(f"{o}=") for a in given[2:] for o in POINTER_OPTIONS):
        return given
    if any(len(a) > 2 and a[:2] in ("-m", "-f", "-a") and a[2] != "-" for a in given[2:]):
        return given
    return [*given[:2], "-m", MODULE, *given[2:]]


def main() -> None:
    from foundry_pipeline.cli.instance import enter_project, readable_instance
    from foundry_pipeline.cli.show import told

    try:
        root = None
        if not {"--help", "-h", "--version", "-v"} & set(sys.argv[1:]):
            root = enter_project(release=tuple(sys.argv[1:3]) == ("asset", "materialize"))
        sys.argv[1:] = with_pointer(sys.argv[1:], dict(os.environ))
        if root is None:
            _dagster()
            return
        with readable_instance(root):
            _dagster()
    except FoundryError as error:
        print(told(error), file=sys.stderr)
        raise SystemExit(1) from None


def _dagster() -> None:
    from dagster._cli import main as dagster_main
    from dagster_shared.check import CheckError

    try:
        dagster_main()
    except CheckError as error:
        # Dagster tells this as a broken promise inside itself, with its whole stack.
        if "no '--partition' option was provided" not in str(error):
            raise
        print(
            "error: what is selected belongs to a run with several seeds, each of them a partition, and none is named\n"
            "where: --select\n"
            "mend:  add --partition SEED; `foundry seeds RUN` lists the partitions of a run with the command of each",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
