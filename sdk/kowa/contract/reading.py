"""Contracts from descriptors, as protoc writes them."""

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

_Comments = Mapping[str, str]  # by the full names of what they stand before

_TYPES: Final[Mapping[int, str]] = {
    number: name.removeprefix("TYPE_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
_FIELD_OPTIONS: Final[Mapping[str, Any]] = {
    name: getattr(options_pb2, name)
    for name in ("change_not_served", "default_value", "not_served", "rule", "ref", "in_bytes", "long_text")
}
# What stands in a file, a message, an enum, a service: field numbers of the descriptors, which comments are found by.
_DECLARATIONS: Final[Mapping[type, Mapping[int, str]]] = {
    descriptor_pb2.FileDescriptorProto: {4: "message_type", 5: "enum_type", 6: "service"},
    descriptor_pb2.DescriptorProto: {2: "field", 3: "nested_type", 4: "enum_type"},
    descriptor_pb2.EnumDescriptorProto: {2: "value"},
    descriptor_pb2.ServiceDescriptorProto: {2: "method"},
}


def read(files: Iterable[descriptor_pb2.FileDescriptorProto], packages: Collection[str]) -> contract.Contract:
    """The contract of some packages in a set of files, each of which stands after those it imports.

    Raises ValueError when a resource has no service, two have one name, or a method reads a stream.
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
    if twice := {kind.name for kind in kinds if sum(kind.name == other.name for other in kinds) > 1}:
        raise ValueError(f"more than one resource is called {', '.join(sorted(twice))}")
    return contract.Contract(
        kinds={kind.name: kind for kind in kinds},
        services=by_name,
        methods={method.path: method for service in services for method in service.methods.values()},
        messages=messages,
        enums={enum.full_name: _values(enum, comments) for enum in enums},
        pool=pool,
    )


def _comments(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """What stands before elements, by their full names (see SourceCodeInfo)."""
    for location in file.source_code_info.location:
        if not (comment := location.leading_comments):
            continue
        path, element, name = list(location.path), cast(Any, file), file.package
        while path and (declared := _DECLARATIONS.get(type(element), {}).get(path[0])):
            element, path = getattr(element, declared)[path[1]], path[2:]
            name += f".{element.name}"
        if not path:
            yield name, "\n".join(line.strip() for line in comment.strip().splitlines())


def _option(of: Any, extension: Any) -> Any:
    """What the contract says with one of its options; its default when it doesn't."""
    return of.GetOptions().Extensions[extension]


def _nested(messages: Iterable[Descriptor]) -> Iterator[Descriptor]:
    """Messages and those declared in them; no entries of maps."""
    for message in messages:
        if not message.GetOptions().map_entry:
            yield message
            yield from _nested(message.nested_types)


def _message(of: Descriptor, comments: _Comments, known: Mapping[str, Message]) -> Message:
    fields = {field.name: _field(field, comments) for field in of.fields}
    oneofs = (
        contract.Oneof(
            name=oneof.name,
            fields=tuple(field.name for field in fields.values() if field.oneof == oneof.name),
            required=_option(oneof, options_pb2.one_required),
        )
        for oneof in of.oneofs
    )
    return Message(
        name=of.full_name,
        fields=fields,
        oneofs={oneof.name: oneof for oneof in oneofs if oneof.fields},
        comment=comments.get(of.full_name, ""),
        known=known,
    )


def _field(of: FieldDescriptor, comments: _Comments) -> Field:
    options: Any = of.GetOptions().Extensions
    behaviours = options[field_behavior_pb2.field_behavior]
    entry = of.message_type if of.message_type and of.message_type.GetOptions().map_entry else None
    one = entry.fields_by_name["value"] if entry else of
    about = one.message_type or one.enum_type
    oneof = of.containing_oneof.name if of.containing_oneof else ""
    return Field(
        name=of.name,
        type=cast(contract.Type, _TYPES[one.type]),
        type_name=about.full_name if about else "",
        repeated=of.is_repeated and not entry,
        is_map=entry is not None,
        oneof="" if oneof.startswith("_") else oneof,  # what protoc makes of an `optional` field
        presence=of.has_presence,
        required=field_behavior_pb2.REQUIRED in behaviours,
        output_only=field_behavior_pb2.OUTPUT_ONLY in behaviours,
        immutable=field_behavior_pb2.IMMUTABLE in behaviours or options[options_pb2.change_not_served],
        comment=comments.get(of.full_name, ""),
        **{name: options[extension] for name, extension in _FIELD_OPTIONS.items()},
    )


def _values(of: EnumDescriptor, comments: _Comments) -> tuple[Value, ...]:
    prefix = snake(of.name).upper() + "_"
    return tuple(
        Value(
            name=value.name,
            short=value.name.removeprefix(prefix).lower().replace("_", "-"),
            number=value.number,
            not_served=_option(value, options_pb2.value_not_served),
            comment=comments.get(f"{of.full_name}.{value.name}", ""),
        )
        for value in of.values
    )


def _service(of: ServiceDescriptor, messages: Mapping[str, Message], comments: _Comments) -> Service:
    kind = of.name.removesuffix("Service")
    message = of.file.message_types_by_name.get(kind)
    plural = _option(message, options_pb2.kind).plural.title().replace("-", "") if message else ""
    methods = (_method(method, kind, plural, messages, comments) for method in of.methods)
    return Service(of.full_name, {method.verb: method for method in methods})


def _method(
    of: MethodDescriptor, kind: str, plural: str, messages: Mapping[str, Message], comments: _Comments
) -> Method:
    if of.client_streaming:
        raise ValueError(f"{of.name} reads a stream, which REST and gRPC-Web know nothing of")
    verb = of.name.removesuffix(plural).removesuffix(kind) or of.name
    http = _option(of, annotations_pb2.http)
    return Method(
        name=of.name,
        path=f"/{of.containing_service.full_name}/{of.name}",
        verb=snake(verb).replace("_", "-"),
        request=messages[of.input_type.full_name],
        response=of.output_type.full_name,
        streams=of.server_streaming,
        access=_option(of, options_pb2.access),
        http=tuple(
            contract.Http(cast(contract.HttpMethod, method), getattr(binding, method), binding.body)
            for binding in (http, *http.additional_bindings)
            if (method := binding.WhichOneof("pattern"))
        ),
        comment=comments.get(of.full_name, ""),
    )


def _kind(of: Descriptor, messages: Mapping[str, Message], services: Mapping[str, Service]) -> Kind:
    option = _option(of, options_pb2.kind)
    service = services.get(f"{of.full_name}Service")
    if service is None:
        raise ValueError(f"the resource {of.name} has no {of.name}Service in its package")
    return Kind(
        name=of.name,
        noun=snake(of.name),
        nouns=option.plural.replace("-", "_"),
        plural=option.plural,
        message=messages[of.full_name],
        service=service,
        columns=tuple(option.columns),
        uniques=tuple(option.unique),
        converges=option.converges,
    )
