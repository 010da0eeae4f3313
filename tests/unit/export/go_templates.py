"""Go's text/template, as much of it as a Modelfile uses, and the Modelfile itself, as Ollama documents them.

Texts outside of actions are given as they stand. Actions: `if`, `else`, `else if`, `end`, `range` with and without
variables, a field of the present element (`.Role`) or of the whole (`$.System`), a variable (`$i`), strings, numbers,
and the functions `eq`, `ne`, `not`, `and`, `or`, `len`. Anything else is an error, never a guess.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

_ACTION = re.compile(r"\{\{(?P<trim>-? ?)((?:\"(?:[^\"\\]|\\.)*\"|[^\"])*?)\}\}", re.S)
_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\(|\)|\$\w*(?:\.\w+)*|\.\w+(?:\.\w+)*|-?\d+|\w+|\.)')


@dataclass
class Block:
    """A list of nodes: strings, expressions (tuples), or branches and loops."""

    nodes: list[Any] = field(default_factory=list)


@dataclass
class If:
    branches: list[tuple[list[str], Block]]
    otherwise: Block


@dataclass
class Range:
    names: list[str]
    over: list[str]
    body: Block


def render(template: str, values: dict[str, Any]) -> str:
    """The template's text under these values; fields that are missing are empty."""
    block, rest = _parse(_pieces(template), 0)
    assert rest == len(_pieces(template)), "an `end` or `else` too many"
    return _run(block, values, {"$": values})


def _pieces(template: str) -> list[tuple[str, str]]:
    pieces, at = [], 0
    for match in _ACTION.finditer(template):
        assert "-" not in match.group("trim"), "trimming is not known here"
        pieces += [("text", template[at : match.start()]), ("action", match.group(2).strip())]
        at = match.end()
    rest = template[at:]
    assert "{{" not in rest, f"an action that does not end: {rest[:40]!r}"
    return [p for p in [*pieces, ("text", rest)] if p != ("text", "")]


def _parse(pieces: list[tuple[str, str]], at: int) -> tuple[Block, int]:
    block = Block()
    while at < len(pieces):
        kind, body = pieces[at]
        word = body.split(None, 1)[0] if kind == "action" else ""
        if word in ("end", "else"):
            return block, at
        at += 1
        if kind == "text":
            block.nodes.append(body)
        elif word == "if":
            node, at = _parse_if(pieces, at, body[2:])
            block.nodes.append(node)
        elif word == "range":
            names, over = body[5:].rsplit(":=", 1) if ":=" in body else ("", body[5:])
            inner, at = _parse(pieces, at)
            assert pieces[at][1] == "end"
            block.nodes.append(Range(re.findall(r"\$\w+", names), _tokens(over), inner))
            at += 1
        else:
            block.nodes.append(tuple(_tokens(body)))
    return block, at


def _parse_if(pieces: list[tuple[str, str]], at: int, condition: str) -> tuple[If, int]:
    branches, otherwise = [], Block()
    inner, at = _parse(pieces, at)
    branches.append((_tokens(condition), inner))
    while pieces[at][1].startswith("else"):
        told = pieces[at][1][4:].strip()
        inner, at = _parse(pieces, at + 1)
        if told:
            assert told.startswith("if ")
            branches.append((_tokens(told[3:]), inner))
        else:
            otherwise = inner
    assert pieces[at][1] == "end"
    return If(branches, otherwise), at + 1


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        assert match, f"not an expression: {text[at:]!r}"
        tokens.append(match.group(1))
        at = match.end()
    return tokens


def _run(block: Block, dot: Any, names: dict[str, Any]) -> str:
    out = []
    for node in block.nodes:
        if isinstance(node, str):
            out.append(node)
        elif isinstance(node, If):
            chosen = next((inner for tokens, inner in node.branches if _value(tokens, dot, names)), node.otherwise)
            out.append(_run(chosen, dot, names))
        elif isinstance(node, Range):
            for place, item in enumerate(_value(node.over, dot, names) or []):
                given = dict(zip(node.names, (place, item) if len(node.names) == 2 else (item,), strict=False))
                out.append(_run(node.body, item, {**names, **given}))
        else:
            out.append(str(_value(list(node), dot, names)))
    return "".join(out)


def _value(tokens: list[str], dot: Any, names: dict[str, Any]) -> Any:
    value, rest = _call(list(tokens), dot, names)
    assert not rest, f"too much in an expression: {rest}"
    return value


def _call(tokens: list[str], dot: Any, names: dict[str, Any]) -> tuple[Any, list[str]]:
    if not re.fullmatch(r"[a-z]\w*", tokens[0]):
        return _operand(tokens, dot, names)
    word, rest, given = tokens[0], tokens[1:], []
    while rest and rest[0] != ")":
        value, rest = _operand(rest, dot, names)
        given.append(value)
    functions = {
        "eq": lambda a, *b: any(a == x for x in b),
        "ne": lambda a, b: a != b,
        "not": lambda a: not a,
        "and": lambda *a: next((x for x in a if not x), a[-1]),
        "or": lambda *a: next((x for x in a if x), a[-1]),
        "len": len,
    }
    return functions[word](*given), rest


def _operand(tokens: list[str], dot: Any, names: dict[str, Any]) -> tuple[Any, list[str]]:
    token, rest = tokens[0], tokens[1:]
    if token == "(":
        value, rest = _call(rest, dot, names)
        assert rest[0] == ")"
        return value, rest[1:]
    if token.startswith('"'):
        return json.loads(token), rest
    if re.fullmatch(r"-?\d+", token):
        return int(token), rest
    head, *fields = token.split(".")
    value = names[head] if head else dot
    for name in fields:
        value = value.get(name, "") if name else value
    return value, rest


def modelfile_parts(text: str) -> dict[str, list[str]]:
    """Instruction → its values, in order: `{"FROM": ["./x.gguf"], "PARAMETER": ["stop <|im_end|>", …], …}`."""
    parts: dict[str, list[str]] = {}
    at = 0
    while at < len(text):
        line_end = text.find("\n", at)
        line = text[at : line_end if line_end >= 0 else len(text)]
        if not line.strip() or line.startswith("#"):
            at += len(line) + 1
            continue
        word, value = line.split(" ", 1)
        assert word in ("FROM", "ADAPTER", "TEMPLATE", "SYSTEM", "PARAMETER", "LICENSE"), line
        opened = text.find('"""', at)
        if opened >= 0 and opened < at + len(line):
            closed = text.index('"""', opened + 3)
            value = text[at + len(word) + 1 : opened] + text[opened + 3 : closed]
            at = closed + 4
        else:
            value = re.sub(r'"([^"]*)"$', r"\1", value)
            at += len(line) + 1
        parts.setdefault(word, []).append(value)
    return parts
