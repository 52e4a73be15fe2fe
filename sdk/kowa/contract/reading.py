"""Reads contracts from the descriptors that protoc writes."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from google.api import annotations_pb2, field_behavior_pb2  # type: ignore[import-untyped,unused-ignore]
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from kowa import contract
from kowa.contract import Field, Kind, Message, Method, Service, Value
from kowa.formats import snake
from kowa.v2 import options_pb2

_TYPES: Final[Mapping[int, str]] = {
    number: name.removeprefix("TYPE_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
_FIELD_OPTIONS: Final[Mapping[str, Any]] = {
    name: getattr(options_pb2, name)
    for name in ("change_not_served", "default_value", "not_served", "rule", "ref", "in_bytes", "long_text")
}


_Path = tuple[str | int, ...]  # a file's name, and a path in it as in SourceCodeInfo


@dataclass(frozen=True, slots=True)
class _Element:
    """A descriptor and its place, by which its comment is found."""

    descriptor: Any
    path: _Path
    comments: Mapping[_Path, str]

    @property
    def comment(self) -> str:
        """The comment before it."""
        return "\n".join(line.strip() for line in self.comments.get(self.path, "").strip().splitlines())

    def elements(self, number: int, descriptors: Iterable[Any]) -> Iterator["_Element"]:
        """Yields elements declared in it; `number` is that of the field of descriptor.proto that holds them."""
        return (_Element(each, (*self.path, number, index), self.comments) for index, each in enumerate(descriptors))


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
            comments |= {(proto.name, *each.path): each.leading_comments for each in proto.source_code_info.location}
    ours = [_Element(pool.FindFileByName(name), (name,), comments) for name in names]
    declared = [each for file in ours for each in _messages(file, 4, file.descriptor.message_types_by_name.values())]
    messages: dict[str, Message] = {}
    messages |= {each.descriptor.full_name: _message(each, messages) for each in declared}
    enums = [each for file in ours for each in file.elements(5, file.descriptor.enum_types_by_name.values())]
    enums += [each for message in declared for each in message.elements(4, message.descriptor.enum_types)]
    own_services = (each for file in ours for each in file.elements(6, file.descriptor.services_by_name.values()))
    services = {each.descriptor.full_name: _service(each, messages) for each in own_services}
    resources = (each.descriptor for each in declared if _option(each.descriptor, options_pb2.kind).plural)
    kinds = [_kind(each, messages, services) for each in resources]
    if duplicates := {kind.name for kind in kinds if sum(kind.name == other.name for other in kinds) > 1}:
        raise ValueError(f"more than one resource is called {', '.join(sorted(duplicates))}")
    return contract.Contract(
        kinds={kind.name: kind for kind in kinds},
        services=services,
        methods={method.path: method for service in services.values() for method in service.methods.values()},
        messages=messages,
        enums={enum.descriptor.full_name: _values(enum) for enum in enums},
        pool=pool,
    )


def _option(descriptor: Any, extension: Any) -> Any:
    """The value of a custom option, or its default."""
    return descriptor.GetOptions().Extensions[extension]


def _messages(parent: _Element, number: int, descriptors: Iterable[Descriptor]) -> Iterator[_Element]:
    """Yields messages and those declared in them, except the entries of maps."""
    for message in parent.elements(number, descriptors):
        if not message.descriptor.GetOptions().map_entry:
            yield message
            yield from _messages(message, 3, message.descriptor.nested_types)


def _message(element: _Element, all_messages: Mapping[str, Message]) -> Message:
    descriptor: Descriptor = element.descriptor

    def read_fields() -> Mapping[str, Field]:
        return {each.descriptor.name: _field(each) for each in element.elements(2, descriptor.fields)}

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

    return Message(descriptor.full_name, element.comment, all_messages, read_fields, read_oneofs)


def _field(element: _Element) -> Field:
    descriptor: FieldDescriptor = element.descriptor
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
        comment=element.comment,
        **{name: options[extension] for name, extension in _FIELD_OPTIONS.items()},
    )


def _values(enum: _Element) -> tuple[Value, ...]:
    prefix = snake(enum.descriptor.name).upper() + "_"
    return tuple(
        Value(
            name=value.descriptor.name,
            short=value.descriptor.name.removeprefix(prefix).lower().replace("_", "-"),
            number=value.descriptor.number,
            not_served=_option(value.descriptor, options_pb2.value_not_served),
            comment=value.comment,
        )
        for value in enum.elements(2, enum.descriptor.values)
    )


def _service(element: _Element, messages: Mapping[str, Message]) -> Service:
    descriptor: ServiceDescriptor = element.descriptor
    kind = descriptor.name.removesuffix("Service")
    message = descriptor.file.message_types_by_name.get(kind)
    plural = _option(message, options_pb2.kind).plural.title().replace("-", "") if message else ""
    methods = (_method(method, kind, plural, messages) for method in element.elements(2, descriptor.methods))
    return Service(descriptor.full_name, {method.verb: method for method in methods})


def _method(element: _Element, kind: str, plural: str, messages: Mapping[str, Message]) -> Method:
    descriptor: MethodDescriptor = element.descriptor
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
        comment=element.comment,
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
