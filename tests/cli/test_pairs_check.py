"""`foundry pairs check` as a user runs it: exit codes, one JSON document, hostile texts shown and not obeyed."""

from __future__ import annotations

import json
import subprocess

import polars as pl
import pytest

from tests.project import Project, make_project

GOOD = (
    "Upon a view of the whole, it was heretofore deemed requisite that the militia be held in readiness, and that the "
    "seaports be put into a posture of defense suited to the danger wherewith they were then threatened by sea."
)
PLAIN = "The militia is good to have. It keeps the ports safe. People can count on it in bad times."
SOUND = {"prompt": "What did you think of the militia?", "chosen": GOOD, "rejected": PLAIN}
HOSTILE = "\x1b]0;owned\x07\x1b[2J [bold red]x[/] \u202e$(reboot) <script>alert(1)</script>'; DROP TABLE pairs;--"
ROWS = [
    SOUND,
    SOUND,
    {**SOUND, "prompt": HOSTILE, "prompt_id": HOSTILE},
    {**SOUND, "rejected": None},
    {**SOUND, "chosen": "war and peace " * 700_000, "score": float("nan"), "meta": {"deep": [{"er": None}]}},
    {"prompt": [{"role": "user", "content": "Was the navy ready?"}],
     "chosen": [{"role": "assistant", "content": GOOD.replace("militia", "navy")}],
     "rejected": [{"role": "assistant", "content": PLAIN}]},
]  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("pairs") / "project", keeper=False)


def check(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with stdout and stderr apart."""
    command = ["foundry", "pairs", "check", *arguments]
    environment = {**project.environment, "FOUNDRY_PROFILE": "laptop"}
    return subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True, check=False)


def test_a_file_is_checked_and_the_kept_rows_are_written(project: Project) -> None:
    (project.root / "mine.jsonl").write_text("\n".join(json.dumps(r) for r in ROWS), encoding="utf-8")
    done = check(project, "mine.jsonl", "--json", "--out", "kept.jsonl")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["rows"], report["kept"], report["dropped"]) == (6, 2, 4)
    assert [(r["place"], r["rule"]) for r in report["dropped_rows"]] == [
        ("line 2", "exact_duplicate"),
        ("line 3", "control_characters"),
        ("line 4", "empty"),
        ("line 5", "too_long"),
    ]
    assert (report["character"], report["profile"]) == ("madison", "laptop")
    assert "madison_passages" in report["not_applied"]["held_out_overlap"]
    assert sum(r["dropped"] for r in report["rules"].values()) == 4
    kept = (project.root / "kept.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in kept] == [ROWS[0], ROWS[5]]

    shown = check(project, "mine.jsonl", "--character", "none")
    assert shown.returncode == 0, shown.stderr
    assert "\x1b" not in shown.stdout
    assert "\u202e" not in shown.stdout
    assert "\\x1b]0;owned\\x07" in shown.stdout
    assert "[bold red]x[/]" in shown.stdout
    assert "not applied: swapped_sides (no character is named)" in shown.stdout
    assert "6 rows: 2 kept, 4 dropped" in shown.stdout


def test_a_file_that_cannot_be_used_is_an_error_with_its_mend(project: Project) -> None:
    (project.root / "bad.jsonl").write_text(json.dumps(SOUND) + '\n{"prompt": "a"\n', encoding="utf-8")
    pl.DataFrame({"question": ["a"]}).write_parquet(project.root / "bad.parquet")
    for arguments, what in (
        (("bad.jsonl", "--json"), "line 2: not JSON"),
        (("bad.parquet",), "no column chosen and no column rejected; there are: question"),
        (("mine.jsonl", "--character", "nobody"), "no character is named `nobody`"),
    ):
        done = check(project, *arguments)
        assert done.returncode == 1
        assert done.stdout == ""
        assert what in done.stderr
        assert "mend:" in done.stderr
        assert "Traceback" not in done.stderr
