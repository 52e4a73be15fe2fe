"""What a client may change of a resource: masks, what is the server's to fill, what stays as it was created.

All of it counts in nested messages, lists and maps, too. `meta`, the server's part of a resource, is left alone here.
"""

from collections.abc import Collection, Iterator
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from kahuna.domain.errors import invalid, on_field, quoted
from kahuna.domain.validation import META, described, with_parts
from kowa import contract


def clear_output_only(message: Message) -> None:
    """Forgets what a client sent in fields that are the server's to fill."""
    _clear_output_only(described(message), message)


def fields_of_mask(kind: contract.Kind, sent: Message, mask: Collection[str]) -> list[str]:
    """The paths of the fields that an update takes: those of the mask, or else those that are set in what was sent.

    Raises Refusal on `update_mask` for a path that names no field, one of the server's, or a part of what is replaced
    whole: of a list, a map or a plain value.
    """
    for path in mask:
        _check_path(kind, path)
    # What was read and is sent back whole holds the server's part, too.
    return list(mask) or list(_paths_set(kind.message, sent, ""))


def apply_mask(target: Message, source: Message, paths: Collection[str]) -> None:
    """Takes the fields at some paths of the source into the target; what is unset there is cleared.

    The server's fields of the target stay, those in its parts as well: in an element of a list as long as that is
    the same one (see `_same_parts`).
    """
    about, before = described(target), type(target)()
    before.CopyFrom(target)
    for path in paths:
        _copy_path(about, target, source, path.split("."))
    _clear_output_only(about, target)
    _keep_output_only(about, before, target)


def check_immutable(kind: contract.Kind, before: Message, after: Message) -> None:
    """Raises Refusal on the first field that is changed and can't be."""
    for where, field in _changed(kind.message, before, after, ""):
        if field.change_not_served:
            reason = f"can't be changed yet; leave it as it is or create another {kind.command}"
            raise on_field("NOT_SERVED", where, reason)
        raise invalid(where, f"can't be changed; create another {kind.command}")


def newly_named(before: Message | None, after: Message) -> list[tuple[str, str, str]]:
    """What a resource names that it did not name there before: place, kind and id. The server's fields are left out."""
    found = []
    for reference in described(after).references:
        if not reference.output_only:
            known = {id_ for _, id_ in reference.find(before)} if before is not None else set()
            found += [(where, reference.kind, id_) for where, id_ in reference.find(after) if id_ not in known]
    return found


def _clear_output_only(about: contract.Message, message: Message) -> None:
    for part, found in with_parts(about, message):
        for field in part.fields.values():
            if field.output_only:
                found.ClearField(field.name)


def _keep_output_only(about: contract.Message, before: Message, after: Message) -> None:
    for field in about.fields.values():
        if field.output_only:
            _copy_field(after, before, field)
        elif field.name in about.submessages and field.name != META:
            part = about.submessages[field.name]
            for _, old, new in _same_parts(field, before, after):
                # An element without an identity is the same one if a client says the same of it.
                if not field.repeated or field.rule.unique_by or _same_to_clients(part, old, new):
                    _keep_output_only(part, old, new)


def _same_to_clients(about: contract.Message, old: Message, new: Message) -> bool:
    plain = type(old)()
    plain.CopyFrom(old)
    _clear_output_only(about, plain)
    return plain == new


def _changed(
    about: contract.Message, before: Message, after: Message, above: str
) -> Iterator[tuple[str, contract.Field]]:
    for field in about.fields.values():
        if field.output_only or field.name == META:
            continue
        if field.immutable:
            if getattr(before, field.name) != getattr(after, field.name):
                yield contract.field_path(above, field.name), field
        elif field.name in about.submessages:
            part = about.submessages[field.name]
            for key, old, new in _same_parts(field, before, after):
                yield from _changed(part, old, new, contract.field_path(above, field.name, key))


def _same_parts(field: contract.Field, before: Message, after: Message) -> Iterator[tuple[Any, Any, Any]]:
    """The messages in a field that are the same before and after: by their key in a map; in a list by the field that
    makes its elements unique, or else by their order."""
    by = field.rule.unique_by if field.repeated else ""
    known = {getattr(old, by) if by else key: old for key, old in contract.values(before, field)}
    for key, new in contract.values(after, field):
        old = known.get(getattr(new, by) if by else key)
        if old is not None:
            yield key, old, new


def _paths_set(about: contract.Message, sent: Message, above: str) -> Iterator[str]:
    for one, value in sent.ListFields():
        field, path = about.fields[one.name], contract.field_path(above, one.name)
        if field.output_only or path == META:
            continue
        if field.name in about.submessages and not field.is_collection and value.ListFields():
            yield from _paths_set(about.submessages[field.name], value, path)
        else:
            yield path


def _check_path(kind: contract.Kind, path: str) -> None:
    about: contract.Message | None = kind.message
    above: list[str] = []
    for name in path.split("."):
        if about is None:
            whole = ".".join(above)
            raise invalid("update_mask", f"{path}: name the whole field, {whole}; what is sent replaces it")
        field = about.fields.get(name)
        if field is None or [*above, name] == [META]:
            raise invalid("update_mask", f"{kind.plural} have no field {quoted(path)} to change")
        if field.output_only:
            raise invalid("update_mask", f"{path} is the server's to fill")
        above.append(name)
        about = None if field.is_collection else about.submessages.get(name)


def _copy_path(about: contract.Message, target: Any, source: Any, path: list[str]) -> None:
    name, *rest = path
    if not rest:
        _copy_field(target, source, about.fields[name])
    elif target.HasField(name) or source.HasField(name):
        _copy_path(about.submessages[name], getattr(target, name), getattr(source, name), rest)


def _copy_field(target: Any, source: Any, field: contract.Field) -> None:
    """Makes a field of the target what it is in the source."""
    FieldMask(paths=[field.name]).MergeMessage(source, target, replace_message_field=True, replace_repeated_field=True)
