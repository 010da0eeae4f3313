"""Why something is stale: each difference is named, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.docs.staleness import Expected, why_stale
from foundry_pipeline.lineage.store import Record

NAMES = st.from_regex(r"[a-z]{1,6}", fullmatch=True)
HASHES = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
VALUES = st.one_of(st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=3))


def record(inputs: dict[str, str], declaration: dict[str, object], external: dict[str, str], code: str) -> Record:
    ways = {name: {"content": h, "input": h} for name, h in inputs.items()}
    return Record("x", "dataset", "i", "c", ways, dict(declaration), external, code, {})


@given(st.dictionaries(NAMES, HASHES), st.dictionaries(NAMES, VALUES), st.dictionaries(NAMES, HASHES), NAMES)
def test_what_did_not_change_is_not_stale(
    inputs: dict[str, str], declaration: dict[str, object], external: dict[str, str], code: str
) -> None:
    assert why_stale(record(inputs, declaration, external, code), Expected(inputs, declaration, external, code)) == []


@given(st.dictionaries(NAMES, HASHES, min_size=1), st.data())
def test_the_input_that_changed_is_named_and_no_other(inputs: dict[str, str], data: st.DataObject) -> None:
    changed = data.draw(st.sampled_from(sorted(inputs)))
    now = data.draw(st.none() | HASHES.filter(lambda h: h != inputs[changed]))
    found = why_stale(record(inputs, {}, {}, "v"), Expected({**inputs, changed: now}, {}, {}, "v"))
    assert len(found) == 1
    assert found[0].startswith(f"input {changed}: ")


@given(st.dictionaries(NAMES, VALUES), st.dictionaries(NAMES, VALUES))
def test_every_changed_field_is_named(before: dict[str, object], after: dict[str, object]) -> None:
    found = why_stale(record({}, before, {}, "v"), Expected({}, after, {}, "v"))
    # 1 == True and 1 == 1.0 in Python; so it is for an input hash's reader too, who sees what is declared.
    differ = {k for k in before.keys() | after.keys() if (k in before) != (k in after) or before.get(k) != after.get(k)}
    assert {k for k in before.keys() | after.keys() if any(f"`{k}`" in line for line in found)} == differ


def test_a_gained_a_lost_input_and_new_code_are_told_apart() -> None:
    found = why_stale(
        record({"a": "1" * 64}, {}, {"page": "x"}, "old"), Expected({"b": "2" * 64}, {}, {"page": "y"}, "new")
    )
    assert found == [
        "input a: no longer one",
        "input b: was not one",
        "outside the project: `page` changed",
        "code: version old → new",
    ]
