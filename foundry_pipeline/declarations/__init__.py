"""Typed declarations of `sources/` and `assets/`, loaded once and cross-checked once."""

from foundry_pipeline.declarations.load import CharacterFiles, Declarations, load

__all__ = ["CharacterFiles", "Declarations", "load"]
