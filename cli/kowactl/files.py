"""Input from files and stdin: texts byte for byte, and resources as JSON or YAML."""

import codecs
import json
from collections.abc import Iterable
from os.path import isfile
from typing import Any

import click

from kowa import sizes
from kowa.contract import Kind
from kowa.ssh_keys import public_key_problem

STDIN = "-"
MAX_BYTES = 4 << 20  # more than Kahuna accepts
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
GZIP = b"\x1f\x8b"
URLS = ("file://", "fileb://")  # the spelling of files in other clouds' commands

Resource = tuple[dict[str, Any], str]  # its fields as `get` prints them, without the server's, and its etag


def read(file: str) -> bytes:
    """Reads a file or stdin."""
    if file == STDIN:
        meta = click.get_current_context().meta
        if STDIN in meta:
            raise ValueError("stdin is read already; it can be given once")
        meta[STDIN] = True
    try:
        # By its number, so that a closed stdin is an error like any other.
        with open(0 if file == STDIN else file, "rb", closefd=file != STDIN) as opened:
            content = opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ValueError(f"can't read {file}: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"can't read {file}: it is larger than {sizes.in_words(MAX_BYTES)[0]}")
    return content


def text(argument: str) -> str:
    """A text as given, or the content of @FILE, not a character of it changed. @@ stands for an @."""
    if argument.startswith("@@"):
        return argument[1:]
    if argument.startswith("@"):
        content = read(argument[1:])
        if problem := _text_problem(content):
            raise ValueError(f"can't read {argument[1:]}: {problem}")
        return content.decode()
    url = next((url for url in URLS if argument.startswith(url)), "")
    if url or isfile(argument):  # noqa: PTH113 - Path.is_file raises where a name is too long
        raise ValueError(f"write @{argument.removeprefix(url)} for the content of the file")
    return argument


def public_key(argument: str) -> str:
    """The line of an SSH public key, given or in @FILE. Anything else is not sent: it may be a private key."""
    key = text(argument)
    if problem := public_key_problem(key):
        raise ValueError(f"{argument if argument.startswith('@') else 'what is given'} {problem}")
    return key.rstrip("\r\n")


def _text_problem(content: bytes) -> str:
    """Why a guest could not read a file. A byte order mark is a part of it, so it is refused rather than dropped."""
    if content.startswith(codecs.BOM_UTF8):
        return "it begins with a byte order mark; save it as UTF-8 without one"
    if content.startswith(UTF_16):
        return "it is UTF-16; save it as UTF-8"
    if content.startswith(GZIP):
        return "it is compressed; give it uncompressed"
    try:
        content.decode()
    except UnicodeDecodeError:
        return "it is not UTF-8"
    return "it holds NUL bytes, as no text does; save it as UTF-8" if b"\0" in content else ""


def unique_names(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Collects names and values. Raises ValueError for a name given twice."""
    by_name: dict[str, Any] = {}
    for name, value in pairs:
        if name in by_name:
            raise ValueError(f"{name} is given twice")
        by_name[name] = value
    return by_name


def resource(kind: Kind, file: str) -> Resource:
    """Reads a resource from a file. Raises ValueError with the problem."""
    document = _parsed(read(file))
    if unknown := document.keys() - kind.message.fields.keys():
        raise ValueError(f"no {kind.command} has the field {', '.join(sorted(unknown))}")
    meta = document.get("meta") or {}
    if not isinstance(meta, dict):
        raise ValueError("meta must hold names and values, such as an etag")
    fields = {field.name: document[field.name] for field in kind.writable if field.name in document}
    return fields, str(meta.get("etag") or "")


def _parsed(content: bytes) -> dict[str, Any]:
    """Parses JSON or YAML to names and values of JSON's types. A byte order mark is ignored."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses duplicate names, of which PyYAML takes the last."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            unique_names((key.value, value) for key, value in node.value if isinstance(key, yaml.ScalarNode))
            return super().construct_mapping(node, deep)

    try:
        document = yaml.load(content.decode("utf-8-sig"), Loader)  # noqa: S506 - a SafeLoader
        plain = json.loads(json.dumps(document, default=str, allow_nan=False), object_pairs_hook=unique_names)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8; save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ValueError(f"it is neither JSON nor YAML: {error}") from None
    except (RecursionError, TypeError, ValueError) as error:  # YAML has values that JSON lacks
        raise ValueError(f"it contains a value that no resource can have: {error}") from None
    if not isinstance(plain, dict):
        raise ValueError("it must hold one resource: names and values")
    return plain
