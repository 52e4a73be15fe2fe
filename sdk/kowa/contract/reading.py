"""Reads contracts from the descriptors that protoc writes."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, cast

from google.api import annotations_pb2, field_behavior_pb2  # type: ignore[import-untyped,unused-ignore]
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from kowa import contract
from kowa.contract import Field, Kind, Message, Method, Service, Value
from kowa.formats import snake
from kowa.v2 import options_pb2

_Comments = Mapping[str, str]  # by the full name of the commented element

_TYPES: Final[Mapping[int, str]] = {
    number: name.removeprefix("TYPE_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
_FIELD_OPTIONS: Final[Mapping[str, Any]] = {
    name: getattr(options_pb2, name)
    for name in ("change_not_served", "default_value", "not_served", "rule", "ref", "in_bytes", "long_text")
}
# Descriptor fields that hold declarations, by their numbers, of which the paths in SourceCodeInfo are made.
_DECLARATIONS: Final[Mapping[type, Mapping[int, str]]] = {
    descriptor_pb2.FileDescriptorProto: {4: "message_type", 5: "enum_type", 6: "service"},
    descriptor_pb2.DescriptorProto: {2: "field", 3: "nested_type", 4: "enum_type"},
    descriptor_pb2.EnumDescriptorProto: {2: "value"},
    descriptor_pb2.ServiceDescriptorProto: {2: "method"},
}


def read(files: Iterable[descriptor_pb2.FileDescriptorProto], packages: Collection[str]) -> contract.Contract:
    """Reads the contract of some packages from a set of files, each after the files that it imports.

    Raises ValueError when a resource has no service, when two have the same name, or when a method reads a stream.
    """
    pool, comments = DescriptorPool(), dict[str, str]()
    names: list[str] = []
    for proto in files:
        pool.Add(proto)
        if proto.package in packages:
            names.append(proto.name)
            comments |= _comments(proto)
    ours = [pool.FindFileByName(name) for name in names]
    declared = [each for file in ours for each in _nested(file.message_types_by_name.values())]
    messages: dict[str, Message] = {}
    messages |= {each.full_name: _message(each, comments, messages) for each in declared}
    enums = [enum for file in ours for enum in file.enum_types_by_name.values()]
    enums += [enum for message in declared for enum in message.enum_types]
    services = [_service(each, messages, comments) for file in ours for each in file.services_by_name.values()]
    by_name = {service.name: service for service in services}
    kinds = [_kind(each, messages, by_name) for each in declared if _option(each, options_pb2.kind).plural]
    if duplicates := {kind.name for kind in kinds if sum(kind.name == other.name for other in kinds) > 1}:
        raise ValueError(f"more than one resource is called {', '.join(sorted(duplicates))}")
    return contract.Contract(
        kinds={kind.name: kind for kind in kinds},
        services=by_name,
        methods={method.path: method for service in services for method in service.methods.values()},
        messages=messages,
        enums={enum.full_name: _values(enum, comments) for enum in enums},
        pool=pool,
    )


def _comments(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """Yields the comment before each element, by its full name (see SourceCodeInfo)."""
    for location in file.source_code_info.location:
        if not (comment := location.leading_comments):
            continue
        path, element, name = list(location.path), cast(Any, file), file.package
        while path and (declared := _DECLARATIONS.get(type(element), {}).get(path[0])):
            element, path = getattr(element, declared)[path[1]], path[2:]
            name += f".{element.name}"
        if not path:
            yield name, "\n".join(line.strip() for line in comment.strip().splitlines())


def _option(descriptor: Any, extension: Any) -> Any:
    """The value of a custom option, or its default."""
    return descriptor.GetOptions().Extensions[extension]


def _nested(messages: Iterable[Descriptor]) -> Iterator[Descriptor]:
    """Yields messages and those declared in them, except the entries of maps."""
    for message in messages:
        if not message.GetOptions().map_entry:
            yield message
            yield from _nested(message.nested_types)


def _message(descriptor: Descriptor, comments: _Comments, all_messages: Mapping[str, Message]) -> Message:
    fields = {field.name: _field(field, comments) for field in descriptor.fields}
    oneofs = (
        contract.Oneof(
            name=oneof.name,
            fields=tuple(field.name for field in fields.values() if field.oneof == oneof.name),
            required=_option(oneof, options_pb2.one_required),
        )
        for oneof in descriptor.oneofs
    )
    return Message(
        name=descriptor.full_name,
        fields=fields,
        oneofs={oneof.name: oneof for oneof in oneofs if oneof.fields},
        comment=comments.get(descriptor.full_name, ""),
        all_messages=all_messages,
    )


def _field(descriptor: FieldDescriptor, comments: _Comments) -> Field:
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
        comment=comments.get(descriptor.full_name, ""),
        **{name: options[extension] for name, extension in _FIELD_OPTIONS.items()},
    )


def _values(descriptor: EnumDescriptor, comments: _Comments) -> tuple[Value, ...]:
    prefix = snake(descriptor.name).upper() + "_"
    return tuple(
        Value(
            name=value.name,
            short=value.name.removeprefix(prefix).lower().replace("_", "-"),
            number=value.number,
            not_served=_option(value, options_pb2.value_not_served),
            comment=comments.get(f"{descriptor.full_name}.{value.name}", ""),
        )
        for value in descriptor.values
    )


def _service(descriptor: ServiceDescriptor, messages: Mapping[str, Message], comments: _Comments) -> Service:
    kind = descriptor.name.removesuffix("Service")
    message = descriptor.file.message_types_by_name.get(kind)
    plural = _option(message, options_pb2.kind).plural.title().replace("-", "") if message else ""
    methods = (_method(method, kind, plural, messages, comments) for method in descriptor.methods)
    return Service(descriptor.full_name, {method.verb: method for method in methods})


def _method(
    descriptor: MethodDescriptor, kind: str, plural: str, messages: Mapping[str, Message], comments: _Comments
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
        comment=comments.get(descriptor.full_name, ""),
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
