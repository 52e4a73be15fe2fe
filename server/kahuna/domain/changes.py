"""Changes that clients may make to a resource: update masks, output-only fields, immutable fields.

Nested messages, lists and maps are covered, too. `meta`, the server's part of a resource, is skipped.
"""

from collections.abc import Collection, Iterator
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from kahuna.domain.errors import invalid, on_field, quoted
from kahuna.domain.validation import META, each_message, schema_of
from kowa import contract


def clear_output_only(message: Message) -> None:
    """Clears what a client sent in fields that only the server fills."""
    _clear_output_only(schema_of(message), message)


def fields_of_mask(kind: contract.Kind, sent: Message, mask: Collection[str]) -> list[str]:
    """The paths of the fields that an update changes: those of the mask, or without one those set in the sent resource.

    Raises Refusal on `update_mask` for a path of no field, of an output-only field, or of a part of a field that can
    only be replaced whole: a list, a map or a plain value.
    """
    for path in mask:
        _check_path(kind, path)
    # A resource that was read and is sent back whole has output-only fields set, too: they are skipped.
    return list(mask) or list(_paths_of_set_fields(kind.message, sent, ""))


def apply_mask(target: Message, source: Message, paths: Collection[str]) -> None:
    """Copies the fields at some paths from the source to the target, and clears those that the source does not set.

    Output-only fields of the target keep their values, also in nested messages: in an element of a list as long as
    that is the same one (see `_matching_parts`).
    """
    schema, before = schema_of(target), type(target)()
    before.CopyFrom(target)
    for path in paths:
        _copy_path(schema, target, source, path.split("."))
    _clear_output_only(schema, target)
    _restore_output_only(schema, before, target)


def check_immutable(kind: contract.Kind, before: Message, after: Message) -> None:
    """Raises Refusal on the first immutable field that differs."""
    for path, field in _changed_immutables(kind.message, before, after, ""):
        if field.change_not_served:
            reason = f"can't be changed yet; leave it as it is or create another {kind.command}"
            raise on_field("NOT_SERVED", path, reason)
        raise invalid(path, f"can't be changed; create another {kind.command}")


def new_references(before: Message | None, after: Message) -> list[tuple[str, str, str]]:
    """The references that a change adds: path, kind and id of each. Output-only fields are left out."""
    added = []
    for reference in schema_of(after).references:
        if not reference.output_only:
            former_ids = {id_ for _, id_ in reference.find(before)} if before is not None else set()
            added += [(path, reference.kind, id_) for path, id_ in reference.find(after) if id_ not in former_ids]
    return added


def _clear_output_only(schema: contract.Message, message: Message) -> None:
    for part_schema, part in each_message(schema, message):
        for field in part_schema.fields.values():
            if field.output_only:
                part.ClearField(field.name)


def _restore_output_only(schema: contract.Message, before: Message, after: Message) -> None:
    for field in schema.fields.values():
        if field.output_only:
            _copy_field(after, before, field)
        elif field.name in schema.submessages and field.name != META:
            part = schema.submessages[field.name]
            for _, old, new in _matching_parts(field, before, after):
                # A list element without a key is the same one if all that a client may set in it is equal.
                if not field.repeated or field.rule.unique_by or _is_equal_for_clients(part, old, new):
                    _restore_output_only(part, old, new)


def _is_equal_for_clients(schema: contract.Message, old: Message, new: Message) -> bool:
    plain = type(old)()
    plain.CopyFrom(old)
    _clear_output_only(schema, plain)
    return plain == new


def _changed_immutables(
    schema: contract.Message, before: Message, after: Message, parent: str
) -> Iterator[tuple[str, contract.Field]]:
    for field in schema.fields.values():
        if field.output_only or field.name == META:
            continue
        if field.immutable:
            if getattr(before, field.name) != getattr(after, field.name):
                yield contract.field_path(parent, field.name), field
        elif field.name in schema.submessages:
            for key, old, new in _matching_parts(field, before, after):
                path = contract.field_path(parent, field.name, key)
                yield from _changed_immutables(schema.submessages[field.name], old, new, path)


def _matching_parts(field: contract.Field, before: Message, after: Message) -> Iterator[tuple[Any, Any, Any]]:
    """Yields pairs of messages in a field before and after: matched by key in a map, in a list by `unique_by` if it is
    set, else by position."""
    key_field = field.rule.unique_by if field.repeated else ""
    earlier = {getattr(old, key_field) if key_field else key: old for key, old in contract.values(before, field)}
    for key, new in contract.values(after, field):
        old = earlier.get(getattr(new, key_field) if key_field else key)
        if old is not None:
            yield key, old, new


def _paths_of_set_fields(schema: contract.Message, sent: Message, parent: str) -> Iterator[str]:
    for descriptor, value in sent.ListFields():
        field, path = schema.fields[descriptor.name], contract.field_path(parent, descriptor.name)
        if field.output_only or path == META:
            continue
        if field.name in schema.submessages and not field.is_collection and value.ListFields():
            yield from _paths_of_set_fields(schema.submessages[field.name], value, path)
        else:
            yield path


def _check_path(kind: contract.Kind, path: str) -> None:
    schema: contract.Message | None = kind.message
    names: list[str] = []
    for name in path.split("."):
        if schema is None:
            whole = ".".join(names)
            raise invalid("update_mask", f"{path}: name the whole field, {whole}; what is sent replaces it")
        field = schema.fields.get(name)
        if field is None or [*names, name] == [META]:
            raise invalid("update_mask", f"{kind.plural} have no field {quoted(path)} to change")
        if field.output_only:
            raise invalid("update_mask", f"{path} is the server's to fill")
        names.append(name)
        schema = None if field.is_collection else schema.submessages.get(name)


def _copy_path(schema: contract.Message, target: Any, source: Any, path: list[str]) -> None:
    name, *rest = path
    if not rest:
        _copy_field(target, source, schema.fields[name])
    elif target.HasField(name) or source.HasField(name):
        _copy_path(schema.submessages[name], getattr(target, name), getattr(source, name), rest)


def _copy_field(target: Any, source: Any, field: contract.Field) -> None:
    """Gives a field of the target the value that it has in the source, unset included."""
    FieldMask(paths=[field.name]).MergeMessage(source, target, replace_message_field=True, replace_repeated_field=True)
