"""The language of filters: conditions `field operator value` joined by AND.

What people bring from SQL, AIP-160, JMESPath or kubectl either means here what it means there, or is refused with what
to write instead. It is never taken for a part of a value: `!=` would then find what it was to spare.
"""

import json
import re
from dataclasses import dataclass
from unicodedata import category

from kahuna.domain.errors import Refusal, invalid, quoted

FORM = 'name = "web"'
_OPERATORS = {"=": "=", "==": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=", ":": ":"}
_SIGNS = re.compile(r"[=!<>~:^]+")
_WORD = re.compile(r"\w+")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'", re.DOTALL)
# A name in a map may hold dots and slashes, and what else it holds stands in quotes: labels.k8s.io/role, labels."a b".
_FIELD = re.compile(rf"[A-Za-z_]\w*(?:\.(?:[\w/-]+|{_STRING.pattern}))*", re.ASCII | re.DOTALL)
_NAME = re.compile(rf"{_STRING.pattern}|[^.]+", re.DOTALL)
_BARE = re.compile(r"[\w.:/@+-]+")
_AND = re.compile(r"AND\b|&&", re.IGNORECASE)
_NOT = re.compile(r"NOT\b|[-!]", re.IGNORECASE)
_OR = re.compile(r"OR\b|\|\|?", re.IGNORECASE)
_NULLS = {"null", "NULL", "Null", "nil", "None"}
_WILDCARD = (
    "there are no wildcards; : asks for a part of a text, such as name:web, and \\* in quotes is the sign itself"
)
_MANY = "there are no parentheses and no lists; list once for each value"
# What stands where only an operator or AND can, and what to write instead.
_FOREIGN = {
    "~": "there are no patterns; : asks for a part of a text, such as name:web",
    "<>": "<> is no operator; write !=",
    "in": "there is no IN; list once for each value, or ask for a part of a text with :",
    "notin": "there is no NOTIN; write a condition with != for each value",
    "like": "there is no LIKE; : asks for a part of a text, such as name:web",
    "is": 'there is no IS; what is not set is asked for with = ""',
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, as it is written."""

    path: str  # `names` reads it
    operator: str  # one of = != < <= > >= :
    value: str  # without its quotes


def conditions(text: str) -> list[Condition]:
    """What all must hold; none for an empty filter.

    Raises Refusal on `filter` with what can't be read and what to write instead.
    """
    found: list[Condition] = []
    rest = text.strip()
    while rest:
        path, rest = _field(rest)
        operator, rest = _operator(path, rest)
        value, rest = _value(path, operator, rest)
        found.append(Condition(path, operator, value))
        if rest:
            rest = _joined(rest)
    return found


def names(path: str) -> list[str]:
    """The names on the path of a field, without quotes; none if it can't be one."""
    if not _FIELD.fullmatch(path):
        return []
    return [_unquoted(name) if name[0] in "\"'" else name for name in _NAME.findall(path)]


def _field(text: str) -> tuple[str, str]:
    if _NOT.match(text):
        raise _wrong("there is no NOT; write != for what shall differ")
    if text[0] in "([":
        raise _wrong(_MANY)
    name = _FIELD.match(text)
    if name is None:
        raise _unreadable(text)
    return name[0], text[name.end() :].lstrip()


def _operator(path: str, text: str) -> tuple[str, str]:
    signs = _SIGNS.match(text)
    if signs is None:
        word = _WORD.match(text)
        raise (
            _wrong(_FOREIGN.get(word[0].lower(), ""))
            if word and word[0].lower() in _FOREIGN
            else _unreadable(f"{path} {text}".strip())
        )
    if "~" in signs[0]:
        raise _wrong(_FOREIGN["~"])
    if signs[0] not in _OPERATORS:
        raise _wrong(_FOREIGN.get(signs[0]) or f"{quoted(signs[0])} is no operator; use one of = != < <= > >= :")
    return _OPERATORS[signs[0]], text[signs.end() :].lstrip()


def _value(path: str, operator: str, text: str) -> tuple[str, str]:
    """The value, and what follows it."""
    if string := _STRING.match(text):
        return _unquoted(string[0]), text[string.end() :].lstrip()
    bare = _BARE.match(text)
    follows = text[bare.end() :] if bare else text
    if not follows.startswith("&&") and follows[:1].strip():
        raise _strange(follows[0])
    if bare is None:
        raise _wrong(f'{path} {operator} lacks a value; for an empty one write ""')
    if bare[0] in _NULLS:
        raise _wrong(f'{bare[0]} is no value; for what is not set write "", for the word itself put it in quotes')
    return bare[0], follows.lstrip()


def _strange(sign: str) -> Refusal:
    """What is said of a sign that no value without quotes holds."""
    if sign in "\"'":
        return _wrong(f"a quote is not closed, or stands within a value; write values like {FORM}")
    if sign == "*":
        return _wrong(_WILDCARD)
    if sign in "()[]{}":
        return _wrong(_MANY)
    if sign == "`" or category(sign) in {"Pi", "Pf", "Ps"}:
        return _wrong(f"{sign} is no quote here; write \" or '")
    if sign == ",":
        return _wrong("a comma joins nothing; join conditions with AND, or put the value in quotes")
    return _wrong(f"a value that holds {sign} needs quotes")


def _unquoted(string: str) -> str:
    """A string with the escapes of JSON, and with \\* and \\'."""

    def as_json(found: re.Match[str]) -> str:
        if found[0] == "*":
            raise _wrong(_WILDCARD)
        return {"\\*": "*", "\\'": "'", '"': '\\"'}.get(found[0], found[0])

    body = re.sub(r'\\.|[*"]', as_json, string[1:-1], flags=re.DOTALL)
    try:
        return str(json.loads(f'"{body}"', strict=False))
    except ValueError:
        raise _wrong("a string holds a \\ that escapes nothing; write \\\\ for the sign itself") from None


def _joined(text: str) -> str:
    """What stands behind the AND that is due."""
    joint = _AND.match(text)
    if joint is None:
        if _OR.match(text):
            raise _wrong("there is no OR; list once for each condition")
        if text[0] in "()[],":
            raise _strange(text[0])
        raise _wrong(f"conditions are joined by AND, found {quoted(text)}; a value with spaces needs quotes")
    rest = text[joint.end() :].lstrip()
    if not rest:
        raise _wrong(f"a condition is missing behind {joint[0]}")
    return rest


def _unreadable(text: str) -> Refusal:
    return _wrong(f"can't be read at {quoted(text)}; write conditions like {FORM} joined by AND")


def _wrong(said: str) -> Refusal:
    return invalid("filter", said)
