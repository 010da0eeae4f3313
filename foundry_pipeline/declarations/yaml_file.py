"""A YAML file as Python values: safe tags only, a key written twice is an error, and a fault names file, line and column.

>>> read_text("lora_rank: 8")
{'lora_rank': 8}
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from foundry_pipeline.errors import DeclarationError

# The parser in C has no limit of its own and would run out of stack at some thirty thousand; files of people nest ten deep.
_DEEP = 1000
_INDENT = re.compile(rf"^[ ?:-]{{{_DEEP}}}", re.MULTILINE)


class _Plain(yaml.SafeLoader):
    """PyYAML's own parser, whose messages show the line."""


# libyaml reads ten times as fast, and every command reads every declaration; a build of PyYAML may come without it.
class _Fast(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """libyaml, which YAML's own authors wrote."""


def _mapping(loader: Any, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is written twice", key_node.start_mark
            )
        seen.add(key)
    return yaml.constructor.SafeConstructor.construct_mapping(loader, node, deep=deep)


for _loader in (_Plain, _Fast):
    _loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_text(text: str) -> Any:
    """The values of a YAML text; raises yaml.YAMLError, and RecursionError for what nests beyond reason."""
    if text.count("[") + text.count("{") >= _DEEP or _INDENT.search(text):
        return yaml.load(text, Loader=_Plain)
    try:
        return yaml.load(text, Loader=_Fast)
    except yaml.YAMLError:
        # Read once more for a message that shows the line. What only libyaml refuses stays refused.
        yaml.load(text, Loader=_Plain)
        raise


def read_yaml(path: Path) -> Any:
    """Safe YAML of a file; raises DeclarationError naming file and line."""
    try:
        return read_text(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DeclarationError("a declaration is missing", where=str(path), mend=f"write {path}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        told = "nested too deeply" if isinstance(error, RecursionError) else error
        raise DeclarationError(
            f"not readable as YAML: {told}", where=str(path), mend="correct the file, then run `foundry check`"
        ) from error
