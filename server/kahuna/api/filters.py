"""The filter language: conditions `field operator value` joined by AND.

Syntax of SQL, AIP-160, JMESPath or kubectl either means the same here, or is refused with what to write instead. It is
never read as a part of a value: a condition with `!=` would then match what it was meant to exclude.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from kahuna.domain.errors import invalid, quoted

_STRING = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
_NULL = r"(?:null|NULL|Null|nil|None)"
_BARE = r"[\w.:/@+-]"
_END = r"(?=\s|&&|\Z)"
# A name in a map may contain dots and slashes; other characters need quotes: labels.k8s.io/role, labels."a b".
_FIELD = re.compile(rf"(?!(?i:NOT)\b)[A-Za-z_]\w*(?:\.(?:[\w/-]+|{_STRING}))*", re.ASCII | re.DOTALL)
_NAME = re.compile(rf"{_STRING}|[^.]+", re.DOTALL)
_OPERATOR = re.compile(r"(?:==?|!=|[<>]=?|:)(?![=!<>~:^])")
_VALUE = re.compile(rf"{_STRING}|(?!{_NULL}{_END}){_BARE}++{_END}", re.DOTALL)
_JOINT = re.compile(r"AND\b|&&", re.IGNORECASE)

# Mistakes at each position: a pattern, whose last group is shown as {sign}, and what to write instead.
_NO_LISTS = "there are no parentheses and no lists; list once for each value"
_NO_COMMAS = "a comma joins nothing; join conditions with AND, or put the value in quotes"
_NO_WILDCARDS = (
    "there are no wildcards; : asks for a part of a text, such as name:web, and \\* in quotes is the sign itself"
)
_UNREADABLE = 'can\'t be read at {text}; write conditions like name = "web" joined by AND'
_FIELD_MISTAKES = {
    r"NOT\b|[-!]": "there is no NOT; write != for what shall differ",
    r"[(\[]": _NO_LISTS,
    r"": _UNREADABLE,
}
_OPERATOR_MISTAKES = {
    r"[=!<>:^]*~": "there are no patterns; : asks for a part of a text, such as name:web",
    r"<>(?![=!<>~:^])": "<> is no operator; write !=",
    r"([=!<>~:^]+)": "{quoted} is no operator; use one of = != < <= > >= :",
    r"in\b": "there is no IN; list once for each value, or ask for a part of a text with :",
    r"notin\b": "there is no NOTIN; write a condition with != for each value",
    r"like\b": "there is no LIKE; : asks for a part of a text, such as name:web",
    r"is\b": 'there is no IS; what is not set is asked for with = ""',
    r"": _UNREADABLE,
}
_VALUE_MISTAKES = {
    r"\Z|&&": '{before} lacks a value; for an empty one write ""',
    _NULL + _END: '{sign} is no value; for what is not set write "", for the word itself put it in quotes',
    _BARE + r"*+[\"']": 'a quote is not closed, or stands within a value; write values like name = "web"',
    _BARE + r"*+\*": _NO_WILDCARDS,
    _BARE + r"*+[()\[\]{}]": _NO_LISTS,
    _BARE + r"*+,": _NO_COMMAS,
    _BARE + r"*+([`«»\u2018-\u201f\u2039\u203a\u300c-\u300f])": "{sign} is no quote here; write \" or '",
    _BARE + r"*+(.)": "a value that holds {sign} needs quotes",
}
_JOINT_MISTAKES = {
    r"OR\b|\|\|?": "there is no OR; list once for each condition",
    r"[()\[\]]": _NO_LISTS,
    r",": _NO_COMMAS,
    r"": "conditions are joined by AND, found {text}; a value with spaces needs quotes",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, as written."""

    path: str  # parsed by `names`
    operator: str  # one of = != < <= > >= :
    value: str  # without its quotes


def conditions(text: str) -> list[Condition]:
    """Parses a filter into conditions, all of which must be true; none for an empty filter.

    Raises Refusal on `filter` that shows the mistake and what to write instead.
    """
    found: list[Condition] = []
    rest = text.strip()
    while rest:
        path, rest = _take(_FIELD, _FIELD_MISTAKES, rest)
        operator, rest = _take(_OPERATOR, _OPERATOR_MISTAKES, rest, before=path)
        value, rest = _take(_VALUE, _VALUE_MISTAKES, rest, before=f"{path} {operator}")
        found.append(Condition(path, operator.replace("==", "="), _unquoted(value)))
        if rest:
            joint, rest = _take(_JOINT, _JOINT_MISTAKES, rest)
            if not rest:
                raise invalid("filter", f"a condition is missing behind {joint}")
    return found


def names(path: str) -> list[str]:
    """Splits the path of a field into names without quotes; returns none if it is not a path."""
    if not _FIELD.fullmatch(path):
        return []
    return [_unquoted(name) for name in _NAME.findall(path)]


def _take(expected: re.Pattern[str], mistakes: Mapping[str, str], text: str, before: str = "") -> tuple[str, str]:
    """Splits a text after what is expected at its beginning. Raises Refusal with what to write instead."""
    if found := expected.match(text):
        return found[0], text[found.end() :].lstrip()
    matches = ((re.match(mistake, text, re.IGNORECASE | re.DOTALL), remedy) for mistake, remedy in mistakes.items())
    found, remedy = next((found, remedy) for found, remedy in matches if found)
    sign, at = found[found.lastindex or 0], quoted(f"{before} {text}".strip())
    raise invalid("filter", remedy.format(sign=sign, quoted=quoted(sign), before=before, text=at))


def _unquoted(string: str) -> str:
    """Removes quotes, if there are any; resolves the escapes of JSON, \\* and \\'."""
    if string[0] not in "\"'":
        return string

    def as_json(found: re.Match[str]) -> str:
        if found[0] == "*":
            raise invalid("filter", _NO_WILDCARDS)
        return {"\\*": "*", "\\'": "'", '"': '\\"'}.get(found[0], found[0])

    body = re.sub(r'\\.|[*"]', as_json, string[1:-1], flags=re.DOTALL)
    try:
        return str(json.loads(f'"{body}"', strict=False))
    except ValueError:
        raise invalid("filter", "a string holds a \\ that escapes nothing; write \\\\ for the sign itself") from None
