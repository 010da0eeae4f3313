"""Docs blocks: every kind and column is described, and a torn block is named."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.chain.stage import Kind
from foundry_pipeline.docs.blocks import load_blocks, parse_blocks
from foundry_pipeline.errors import DeclarationError
from tests.conftest import ROOT


def test_every_kind_of_asset_is_described() -> None:
    assert set(load_blocks(ROOT, "assets")) == set(get_args(Kind))


@pytest.mark.parametrize(
    "text",
    [
        "{% docs a %} open",
        "{% docs a %}x{% enddocs %}{% enddocs %}",
        "{% docs a %}x{% enddocs %}{% docs a %}y{% enddocs %}",
        "{% docs a %}  {% enddocs %}",
    ],
)
def test_a_torn_block_is_refused(text: str) -> None:
    with pytest.raises(DeclarationError):
        parse_blocks(text)


@given(
    st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.from_regex(r"[a-z ]{0,20}[a-z]", fullmatch=True))
)
def test_blocks_come_back_as_written(blocks: dict[str, str]) -> None:
    text = "\n".join(f"{{% docs {name} %}}\n{body}\n{{% enddocs %}}" for name, body in blocks.items())
    assert parse_blocks(text) == {name: " ".join(body.split()) for name, body in blocks.items()}
