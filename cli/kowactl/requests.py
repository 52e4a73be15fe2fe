"""What is sent: messages from what was typed, with ids for names."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from kowa import contract
from kowactl.parts import each

if TYPE_CHECKING:
    from kowactl.references import References


def message(references: "References", about: contract.Message, document: dict[str, Any], **beside: str) -> Any:
    """A message from a document like JSON, with ids for names wherever it holds ids.

    A name that several bear means the one whose parent is named earlier in the document, or is among those beside it.
    Raises click.UsageError naming the field that doesn't fit.
    """
    from google.protobuf.json_format import ParseDict, ParseError

    try:
        return ParseDict(_with_ids(references, about, beside, None, document), contract.load().stub(about.name)())
    except ParseError as error:
        raise click.UsageError(" ".join(str(error).split())) from None


def _with_ids(
    references: "References", about: contract.Message, beside: Mapping[str, str], _: contract.Key, document: Any
) -> Any:
    if not isinstance(document, Mapping):
        return document  # what does not fit is said later
    found, known = dict(document), dict(beside)  # a project stands before what is in it: it tells that apart
    for field in about.fields.values():
        if not found.get(field.name):
            continue
        if field.ref:
            found[field.name] = each(field, found[field.name], partial(_id, references, field.ref, known))
            if not field.many:
                known[field.name] = found[field.name]
        elif field.name in about.parts:
            inner = partial(_with_ids, references, about.parts[field.name], known)
            found[field.name] = each(field, found[field.name], inner)
    return found


def _id(references: "References", kind: str, beside: Mapping[str, str], _: contract.Key, value: Any) -> str:
    return references.id_of(contract.load().kinds[kind], str(value), beside)
