"""What comes from files and from stdin: texts byte for byte, and resources as JSON or YAML."""

import codecs
import json
from os.path import isfile
from typing import Any

import click

from kowa import contract, sizes
from kowa.ssh_keys import why_no_public_key

STDIN = "-"
MAX_BYTES = 4 << 20  # more than Kahuna takes
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
GZIP = b"\x1f\x8b"
URLS = ("file://", "fileb://")  # how other clouds' commands name a file


class Document(click.ParamType[bytes]):
    """A file, or stdin."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> bytes:
        """What it holds."""
        file = str(value)
        if file == STDIN and context:
            if STDIN in context.meta:
                self.fail("stdin is read already; it can be given once", param, context)
            context.meta[STDIN] = True
        try:
            # By its number: a stdin that is closed is an error like any other.
            with open(0 if file == STDIN else file, "rb", closefd=file != STDIN) as opened:
                content = opened.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            self.fail(f"can't read {file}: {getattr(error, 'strerror', None) or error}", param, context)
        if len(content) > MAX_BYTES:
            self.fail(f"can't read {file}: it is larger than {sizes.in_words(MAX_BYTES)[0]}", param, context)
        return content


class Text(click.ParamType[str]):
    """A text, or the file that holds it: @FILE. A text that begins with @ is given with another before it."""

    name = "text|@file"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> str:
        """The text. No line end and no other sign of it is changed."""
        text = str(value)
        if text.startswith("@@"):
            return text[1:]
        if text.startswith("@"):
            content = Document().convert(text[1:], param, context)
            if reason := _why_no_text(content):
                self.fail(f"can't read {text[1:]}: {reason}", param, context)
            return content.decode()
        url = next((url for url in URLS if text.startswith(url)), "")
        if url or isfile(text):  # noqa: PTH113 - Path's raises where a name is too long
            self.fail(f"write @{text.removeprefix(url)} for what the file holds", param, context)
        return text


class PublicKey(Text):
    """An SSH public key. What is none stays here: it may be a private one."""

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> str:
        """Its line."""
        text = super().convert(value, param, context)
        if reason := why_no_public_key(text):
            self.fail(f"{value if str(value).startswith('@') else 'what is given'} {reason}", param, context)
        return text.rstrip("\r\n")


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


def resource(kind: contract.Kind, content: bytes) -> tuple[dict[str, Any], str]:
    """What a file says of a resource, as `get` prints it, without what is the server's to fill; and its etag.

    Raises click.UsageError naming what is wrong.
    """
    document = _parsed(content)
    if unknown := document.keys() - kind.message.fields.keys():
        raise click.UsageError(f"--from-file: no {kind.command} has the field {', '.join(sorted(map(str, unknown)))}")
    meta = document.get("meta") or {}
    if not isinstance(meta, dict):
        raise click.UsageError("--from-file: meta must hold names and values, such as an etag")
    written = {field.name: document[field.name] for field in kind.writable if field.name in document}
    return written, str(meta.get("etag") or "")


def _parsed(content: bytes) -> dict[Any, Any]:
    """Names and values, as plain as JSON has them. A byte order mark says nothing there."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a name that is given twice, of which PyYAML takes the last."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"{twice} is given twice")
            return super().construct_mapping(node, deep)

    try:
        document = yaml.load(content.decode("utf-8-sig"), Loader)  # noqa: S506 - a SafeLoader
        if not isinstance(document, dict):
            raise click.UsageError("--from-file must hold one resource: names and values")
        return {name: json.loads(json.dumps(value, default=str, allow_nan=False)) for name, value in document.items()}
    except UnicodeDecodeError:
        raise click.UsageError("--from-file is not UTF-8; save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise click.UsageError(f"--from-file is neither JSON nor YAML: {' '.join(str(error).split())}") from None
    except (RecursionError, TypeError, ValueError) as error:  # YAML can say what JSON can't
        raise click.UsageError(f"--from-file holds what no resource can: {error}") from None
