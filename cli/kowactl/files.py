"""What comes from files and from stdin: texts byte for byte, and resources as JSON or YAML."""

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
MAX_BYTES = 4 << 20  # more than Kahuna takes
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
GZIP = b"\x1f\x8b"
URLS = ("file://", "fileb://")  # how other clouds' commands name a file

Resource = tuple[dict[str, Any], str]  # as `get` prints it, without what is the server's to fill; and its etag


def read(file: str) -> bytes:
    """What a file, or stdin, holds."""
    if file == STDIN:
        meta = click.get_current_context().meta
        if STDIN in meta:
            raise ValueError("stdin is read already; it can be given once")
        meta[STDIN] = True
    try:
        # By its number: a stdin that is closed is an error like any other.
        with open(0 if file == STDIN else file, "rb", closefd=file != STDIN) as opened:
            found = opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ValueError(f"can't read {file}: {getattr(error, 'strerror', None) or error}") from None
    if len(found) > MAX_BYTES:
        raise ValueError(f"can't read {file}: it is larger than {sizes.in_words(MAX_BYTES)[0]}")
    return found


def text(typed: str) -> str:
    """A text, or of @FILE what it holds: no line end and no other character of it is changed. @@ is an @."""
    if typed.startswith("@@"):
        return typed[1:]
    if typed.startswith("@"):
        found = read(typed[1:])
        if reason := _why_no_text(found):
            raise ValueError(f"can't read {typed[1:]}: {reason}")
        return found.decode()
    url = next((url for url in URLS if typed.startswith(url)), "")
    if url or isfile(typed):  # noqa: PTH113 - Path's raises where a name is too long
        raise ValueError(f"write @{typed.removeprefix(url)} for what the file holds")
    return typed


def public_key(typed: str) -> str:
    """The line of an SSH public key, typed or in @FILE. What is none stays here: it may be a private one."""
    key = text(typed)
    if reason := public_key_problem(key):
        raise ValueError(f"{typed if typed.startswith('@') else 'what is given'} {reason}")
    return key.rstrip("\r\n")


def _why_no_text(content: bytes) -> str:
    """Why a guest could not read it. A byte order mark is part of the file, so it is refused rather than dropped."""
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
    """Names and values. Raises ValueError for a name given twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} is given twice")
        found[name] = value
    return found


def resource(kind: Kind, file: str) -> Resource:
    """What a file says of a resource. Raises ValueError naming what is wrong."""
    document = _parsed(read(file))
    if unknown := document.keys() - kind.message.fields.keys():
        raise ValueError(f"no {kind.command} has the field {', '.join(sorted(unknown))}")
    meta = document.get("meta") or {}
    if not isinstance(meta, dict):
        raise ValueError("meta must hold names and values, such as an etag")
    written = {field.name: document[field.name] for field in kind.writable if field.name in document}
    return written, str(meta.get("etag") or "")


def _parsed(content: bytes) -> dict[str, Any]:
    """Names and values, as plain as JSON has them. A byte order mark says nothing there."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a name that is given twice, of which PyYAML takes the last."""

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
    except (RecursionError, TypeError, ValueError) as error:  # YAML can say what JSON can't
        raise ValueError(f"it holds what no resource can: {error}") from None
    if not isinstance(plain, dict):
        raise ValueError("it must hold one resource: names and values")
    return plain
