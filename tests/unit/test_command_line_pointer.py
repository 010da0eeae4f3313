"""`dagster asset materialize` works bare in this environment, and nothing else of Dagster's command changes."""

from __future__ import annotations

import pytest

from foundry_pipeline.cli.dagster_command import MODULE, with_pointer


def test_the_bare_command_gets_the_pointer() -> None:
    assert with_pointer(["asset", "materialize", "--select", "madison_r2_eval"], {}) == [
        "asset",
        "materialize",
        "-m",
        MODULE,
        "--select",
        "madison_r2_eval",
    ]


@pytest.mark.parametrize(
    "given",
    [
        ["asset", "materialize", "-m", "mine", "--select", "x"],
        ["asset", "materialize", "-mmine", "--select", "x"],
        ["asset", "materialize", "--module-name=mine", "--select", "x"],
        ["asset", "list", "-f", "mine.py"],
        ["dev"],
        ["dev", "-w", "workspace.yaml"],
        ["run", "list"],
        ["--version"],
        [],
    ],
)
def test_a_pointer_given_and_other_commands_are_left_alone(given: list[str]) -> None:
    assert with_pointer(given, {}) == given


def test_a_pointer_in_the_environment_is_left_alone() -> None:
    given = ["asset", "materialize", "--select", "x"]
    assert with_pointer(given, {"DAGSTER_MODULE_NAME": "mine"}) == given
