"""From passages and prompts to candidate pairs, and from those to the pairs worth training on."""

from __future__ import annotations

import polars as pl

Schema = dict[str, pl.DataType | type[pl.DataType]]
"""Columns of a frame and their types, in order."""
