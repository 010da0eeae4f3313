"""A YAML file as Python values: safe tags only, a key written twice is an error, and a fault names file, line and column.

Anyone may have written it. An alias is only a reference while it is read, but whatever is done with the result (checked,
hashed, shown) walks through it once for every way to it: nine lines can stand for a billion values. So values are counted
as if every alias had been written out.

>>> read_text("lora_rank: 8")
{'lora_rank': 8}
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from foundry_pipeline.errors import DeclarationError

# The parser in C has no limit of its own and would run out of stack at some thirty thousand; files of people nest ten deep.
_DEEP = 1000
_LARGEST = 16 << 20  # characters; the longest declaration of the project has 0.1 million
_MOST = 2_000_000  # values, aliases written out
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
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a list or mapping as a key", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is written twice", key_node.start_mark
            )
        seen.add(key)
    return yaml.constructor.SafeConstructor.construct_mapping(loader, node, deep=deep)


for _loader in (_Plain, _Fast):
    _loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


class UnreadableYaml(yaml.YAMLError):
    """What PyYAML lets through, or raises as something else: a bomb, a 40th day, an integer of five thousand digits."""


def read_text(text: str) -> Any:
    """The values of a YAML text; raises yaml.YAMLError, and RecursionError for what nests beyond reason."""
    if len(text) > _LARGEST:
        raise UnreadableYaml(f"the text has {len(text):,} characters, more than {_LARGEST:,}")
    if text.count("[") + text.count("{") >= _DEEP or _INDENT.search(text):
        return _load(text, _Plain)
    try:
        return _load(text, _Fast)
    except yaml.YAMLError:
        # PyYAML's own parser has the last word: its messages show the line, and the few texts that libyaml alone refuses
        # (`[?]`) are read as they are where PyYAML was built without it.
        return _load(text, _Plain)


def _load(text: str, kind: Any) -> Any:
    loader = kind(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if "*" in text:
            _count(node, {}, set())
        return loader.construct_document(node)
    except yaml.YAMLError:
        raise
    except (ValueError, OverflowError, TypeError, AttributeError, KeyError, IndexError) as error:
        # What the constructors of numbers, dates, sets and bytes raise for a text that is none.
        raise UnreadableYaml(f"a value that cannot be read ({error})") from error
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int], within: set[int]) -> int:
    """Values below a node, aliases written out; raises UnreadableYaml for too many, and for one that holds itself."""
    if id(node) in known:
        return known[id(node)]
    if isinstance(node, yaml.ScalarNode):
        return 1
    line = node.start_mark.line + 1
    if id(node) in within:
        raise UnreadableYaml(f"a value that holds itself, line {line}")
    within.add(id(node))
    children = [n for pair in node.value for n in pair] if isinstance(node, yaml.MappingNode) else node.value
    total = 1
    for child in children:
        total += _count(child, known, within)
        if total > _MOST:
            raise UnreadableYaml(f"more than {_MOST:,} values once its aliases are written out, line {line}")
    within.discard(id(node))
    known[id(node)] = total
    return total


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
