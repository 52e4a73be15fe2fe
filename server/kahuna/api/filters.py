"""The language of filters: conditions `field operator value` joined by AND.

What people bring from SQL, AIP-160, JMESPath or kubectl either means here what it means there, or is refused with what
to write instead. It is never taken for a part of a value: `!=` would then find what it was to spare.
"""

import json
import re
from dataclasses import dataclass
from unicodedata import category

from kahuna.domain.errors import Refusal, invalid, quoted

EXAMPLE = 'name = "web"'
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
_NO_WILDCARDS = (
    "there are no wildcards; : asks for a part of a text, such as name:web, and \\* in quotes is the sign itself"
)
_NO_LISTS = "there are no parentheses and no lists; list once for each value"
# Operators of other languages, and what to write instead.
_OTHER_OPERATORS = {
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
            rest = _after_and(rest)
    return found


def names(path: str) -> list[str]:
    """The names on the path of a field, without quotes; none if it can't be one."""
    if not _FIELD.fullmatch(path):
        return []
    return [_unquoted(name) if name[0] in "\"'" else name for name in _NAME.findall(path)]


def _field(text: str) -> tuple[str, str]:
    if _NOT.match(text):
        raise _refusal("there is no NOT; write != for what shall differ")
    if text[0] in "([":
        raise _refusal(_NO_LISTS)
    name = _FIELD.match(text)
    if name is None:
        raise _unreadable(text)
    return name[0], text[name.end() :].lstrip()


def _operator(path: str, text: str) -> tuple[str, str]:
    signs = _SIGNS.match(text)
    if signs is None:
        word = _WORD.match(text)
        raise (
            _refusal(_OTHER_OPERATORS.get(word[0].lower(), ""))
            if word and word[0].lower() in _OTHER_OPERATORS
            else _unreadable(f"{path} {text}".strip())
        )
    if "~" in signs[0]:
        raise _refusal(_OTHER_OPERATORS["~"])
    if signs[0] not in _OPERATORS:
        usual = f"{quoted(signs[0])} is no operator; use one of = != < <= > >= :"
        raise _refusal(_OTHER_OPERATORS.get(signs[0]) or usual)
    return _OPERATORS[signs[0]], text[signs.end() :].lstrip()


def _value(path: str, operator: str, text: str) -> tuple[str, str]:
    """The value, and what follows it."""
    if string := _STRING.match(text):
        return _unquoted(string[0]), text[string.end() :].lstrip()
    bare = _BARE.match(text)
    follows = text[bare.end() :] if bare else text
    if not follows.startswith("&&") and follows[:1].strip():
        raise _stray_sign(follows[0])
    if bare is None:
        raise _refusal(f'{path} {operator} lacks a value; for an empty one write ""')
    if bare[0] in _NULLS:
        raise _refusal(f'{bare[0]} is no value; for what is not set write "", for the word itself put it in quotes')
    return bare[0], follows.lstrip()


def _stray_sign(sign: str) -> Refusal:
    """The refusal for a sign that a value without quotes can't contain."""
    if sign in "\"'":
        return _refusal(f"a quote is not closed, or stands within a value; write values like {EXAMPLE}")
    if sign == "*":
        return _refusal(_NO_WILDCARDS)
    if sign in "()[]{}":
        return _refusal(_NO_LISTS)
    if sign == "`" or category(sign) in {"Pi", "Pf", "Ps"}:
        return _refusal(f"{sign} is no quote here; write \" or '")
    if sign == ",":
        return _refusal("a comma joins nothing; join conditions with AND, or put the value in quotes")
    return _refusal(f"a value that holds {sign} needs quotes")


def _unquoted(string: str) -> str:
    """A string with the escapes of JSON, and with \\* and \\'."""

    def as_json(found: re.Match[str]) -> str:
        if found[0] == "*":
            raise _refusal(_NO_WILDCARDS)
        return {"\\*": "*", "\\'": "'", '"': '\\"'}.get(found[0], found[0])

    body = re.sub(r'\\.|[*"]', as_json, string[1:-1], flags=re.DOTALL)
    try:
        return str(json.loads(f'"{body}"', strict=False))
    except ValueError:
        raise _refusal("a string holds a \\ that escapes nothing; write \\\\ for the sign itself") from None


def _after_and(text: str) -> str:
    """The text after an AND. Raises Refusal when there is none."""
    joint = _AND.match(text)
    if joint is None:
        if _OR.match(text):
            raise _refusal("there is no OR; list once for each condition")
        if text[0] in "()[],":
            raise _stray_sign(text[0])
        raise _refusal(f"conditions are joined by AND, found {quoted(text)}; a value with spaces needs quotes")
    rest = text[joint.end() :].lstrip()
    if not rest:
        raise _refusal(f"a condition is missing behind {joint[0]}")
    return rest


def _unreadable(text: str) -> Refusal:
    return _refusal(f"can't be read at {quoted(text)}; write conditions like {EXAMPLE} joined by AND")


def _refusal(text: str) -> Refusal:
    return invalid("filter", text)
