"""Reads contracts from the descriptors that protoc writes."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar, cast

from google.api import annotations_pb2, field_behavior_pb2  # type: ignore[import-untyped,unused-ignore]
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from kowa import contract
from kowa.contract import Field, Kind, Message, Method, Service, Value
from kowa.formats import snake
from kowa.v2 import options_pb2

_Path = tuple[str | int, ...]  # a file's name, then an element's path in it as SourceCodeInfo has it
_Comments = Mapping[_Path, str]
_T = TypeVar("_T")

_TYPES: Final[Mapping[int, str]] = {
    number: name.removeprefix("TYPE_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
_FIELD_OPTIONS: Final[Mapping[str, Any]] = {
    name: getattr(options_pb2, name)
    for name in ("change_not_served", "default_value", "not_served", "rule", "ref", "in_bytes", "long_text")
}


def read(files: Iterable[descriptor_pb2.FileDescriptorProto], packages: Collection[str]) -> contract.Contract:
    """Reads the contract of some packages from a set of files, each after the files that it imports.

    Raises ValueError when a resource has no service, when two have the same name, or when a method reads a stream.
    """
    pool, comments = DescriptorPool(), dict[_Path, str]()
    names: list[str] = []
    for proto in files:
        pool.Add(proto)
        if proto.package in packages:
            names.append(proto.name)
            locations = proto.source_code_info.location
            comments |= {(proto.name, *each.path): each.leading_comments for each in locations}
    ours = [pool.FindFileByName(name) for name in names]
    declared = [each for file in ours for each in _nested(file.message_types_by_name.values(), (file.name, 4))]
    messages: dict[str, Message] = {}
    messages |= {each.full_name: _message(each, path, comments, messages) for path, each in declared}
    enums = [each for file in ours for each in _numbered(file.enum_types_by_name.values(), (file.name, 5))]
    enums += [each for path, message in declared for each in _numbered(message.enum_types, (*path, 4))]
    services = [
        _service(each, path, messages, comments)
        for file in ours
        for path, each in _numbered(file.services_by_name.values(), (file.name, 6))
    ]
    by_name = {service.name: service for service in services}
    kinds = [_kind(each, messages, by_name) for _, each in declared if _option(each, options_pb2.kind).plural]
    if duplicates := {kind.name for kind in kinds if sum(kind.name == other.name for other in kinds) > 1}:
        raise ValueError(f"more than one resource is called {', '.join(sorted(duplicates))}")
    return contract.Contract(
        kinds={kind.name: kind for kind in kinds},
        services=by_name,
        methods={method.path: method for service in services for method in service.methods.values()},
        messages=messages,
        enums={enum.full_name: _values(enum, path, comments) for path, enum in enums},
        pool=pool,
    )


def _comment(comments: _Comments, path: _Path) -> str:
    """The comment before the element at a path."""
    return "\n".join(line.strip() for line in comments.get(path, "").strip().splitlines())


def _numbered(elements: Iterable[_T], path: _Path) -> Iterator[tuple[_Path, _T]]:
    """Yields elements with their paths; `path` ends with the number of the descriptor field that holds them."""
    return (((*path, index), element) for index, element in enumerate(elements))


def _option(descriptor: Any, extension: Any) -> Any:
    """The value of a custom option, or its default."""
    return descriptor.GetOptions().Extensions[extension]


def _nested(messages: Iterable[Descriptor], path: _Path) -> Iterator[tuple[_Path, Descriptor]]:
    """Yields messages and those declared in them, except the entries of maps, with their paths."""
    for own, message in _numbered(messages, path):
        if not message.GetOptions().map_entry:
            yield own, message
            yield from _nested(message.nested_types, (*own, 3))


def _message(descriptor: Descriptor, path: _Path, comments: _Comments, all_messages: Mapping[str, Message]) -> Message:
    def read_fields() -> Mapping[str, Field]:
        fields = (_field(each, _comment(comments, at)) for at, each in _numbered(descriptor.fields, (*path, 2)))
        return {field.name: field for field in fields}

    def read_oneofs(fields: Mapping[str, Field]) -> Mapping[str, contract.Oneof]:
        oneofs = (
            contract.Oneof(
                name=oneof.name,
                fields=tuple(field.name for field in fields.values() if field.oneof == oneof.name),
                required=_option(oneof, options_pb2.one_required),
            )
            for oneof in descriptor.oneofs
        )
        return {oneof.name: oneof for oneof in oneofs if oneof.fields}

    return Message(descriptor.full_name, _comment(comments, path), all_messages, read_fields, read_oneofs)


def _field(descriptor: FieldDescriptor, comment: str) -> Field:
    options: Any = descriptor.GetOptions().Extensions
    behaviours = options[field_behavior_pb2.field_behavior]
    message = descriptor.message_type
    entry = message if message and message.GetOptions().map_entry else None
    value_field = entry.fields_by_name["value"] if entry else descriptor
    type_descriptor = value_field.message_type or value_field.enum_type
    oneof = descriptor.containing_oneof.name if descriptor.containing_oneof else ""
    return Field(
        name=descriptor.name,
        type=cast(contract.Type, _TYPES[value_field.type]),
        type_name=type_descriptor.full_name if type_descriptor else "",
        repeated=descriptor.is_repeated and not entry,
        is_map=entry is not None,
        oneof="" if oneof.startswith("_") else oneof,  # protoc wraps an `optional` field in a oneof `_name`
        presence=descriptor.has_presence,
        required=field_behavior_pb2.REQUIRED in behaviours,
        output_only=field_behavior_pb2.OUTPUT_ONLY in behaviours,
        immutable=field_behavior_pb2.IMMUTABLE in behaviours or options[options_pb2.change_not_served],
        comment=comment,
        **{name: options[extension] for name, extension in _FIELD_OPTIONS.items()},
    )


def _values(descriptor: EnumDescriptor, path: _Path, comments: _Comments) -> tuple[Value, ...]:
    prefix = snake(descriptor.name).upper() + "_"
    return tuple(
        Value(
            name=value.name,
            short=value.name.removeprefix(prefix).lower().replace("_", "-"),
            number=value.number,
            not_served=_option(value, options_pb2.value_not_served),
            comment=_comment(comments, at),
        )
        for at, value in _numbered(descriptor.values, (*path, 2))
    )


def _service(
    descriptor: ServiceDescriptor, path: _Path, messages: Mapping[str, Message], comments: _Comments
) -> Service:
    kind = descriptor.name.removesuffix("Service")
    message = descriptor.file.message_types_by_name.get(kind)
    plural = _option(message, options_pb2.kind).plural.title().replace("-", "") if message else ""
    methods = (
        _method(method, kind, plural, messages, _comment(comments, at))
        for at, method in _numbered(descriptor.methods, (*path, 2))
    )
    return Service(descriptor.full_name, {method.verb: method for method in methods})


def _method(
    descriptor: MethodDescriptor, kind: str, plural: str, messages: Mapping[str, Message], comment: str
) -> Method:
    name = descriptor.name
    if descriptor.client_streaming:
        raise ValueError(f"{name} reads a stream, which REST and gRPC-Web do not support")
    verb = name.removesuffix(plural).removesuffix(kind) or name
    http = _option(descriptor, annotations_pb2.http)
    return Method(
        name=name,
        path=f"/{descriptor.containing_service.full_name}/{name}",
        verb=snake(verb).replace("_", "-"),
        request=messages[descriptor.input_type.full_name],
        response=descriptor.output_type.full_name,
        streams=descriptor.server_streaming,
        access=_option(descriptor, options_pb2.access),
        http=tuple(
            contract.Http(cast(contract.HttpMethod, method), getattr(binding, method), binding.body)
            for binding in (http, *http.additional_bindings)
            if (method := binding.WhichOneof("pattern"))
        ),
        comment=comment,
    )


def _kind(descriptor: Descriptor, messages: Mapping[str, Message], services: Mapping[str, Service]) -> Kind:
    option, name = _option(descriptor, options_pb2.kind), descriptor.name
    service = services.get(f"{descriptor.full_name}Service")
    if service is None:
        raise ValueError(f"the resource {name} has no {name}Service in its package")
    return Kind(
        name=name,
        noun=snake(name),
        nouns=option.plural.replace("-", "_"),
        plural=option.plural,
        message=messages[descriptor.full_name],
        service=service,
        columns=tuple(option.columns),
        uniques=tuple(option.unique),
        converges=option.converges,
    )
