"""Contracts from descriptors, as protoc writes them."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

from google.api import annotations_pb2, field_behavior_pb2  # type: ignore[import-untyped,unused-ignore]
from google.protobuf import descriptor_pb2

from kowa.contract import (
    Contract,
    Enum,
    Field,
    Http,
    HttpMethod,
    Kind,
    Message,
    Method,
    Oneof,
    Service,
    Type,
    Unique,
    Value,
    snake,
)
from kowa.v2 import options_pb2

_Path = tuple[int, ...]
_Comments = Callable[[_Path], str]
_Named = TypeVar("_Named", Message, Enum, Service, Kind)

_TYPES: Final = {
    number: name.removeprefix("TYPE_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}


def read(files: Iterable[descriptor_pb2.FileDescriptorProto], packages: Collection[str]) -> Contract:
    """The contract of some packages in a set of files. What it imports of others is known by its class only.

    Raises ValueError when a resource has no service, two have one name, or a method reads a stream.
    """
    files = list(files)
    ours = [(file, _comments(file)) for file in files if file.package in packages]
    messages: dict[str, Message] = {}
    for file, comments in ours:
        messages |= _named(_messages(file, comments, messages))
    services = _named(service for file, comments in ours for service in _services(file, comments, messages))
    kinds = [kind for file, _ in ours for kind in _kinds(file, messages, services)]
    if twice := {kind.name for kind in kinds if sum(kind.name == other.name for other in kinds) > 1}:
        raise ValueError(f"more than one resource is called {', '.join(sorted(twice))}")
    return Contract(
        kinds=_named(kinds),
        services=services,
        methods=MappingProxyType({m.path: m for service in services.values() for m in service.methods.values()}),
        messages=MappingProxyType(messages),
        enums=_named(enum for file, comments in ours for enum in _enums(file, comments)),
        classes=MappingProxyType(dict(entry for file in files for entry in _classes(file))),
    )


def _named(items: Iterable[_Named]) -> Mapping[str, _Named]:
    return MappingProxyType({item.name: item for item in items})


def _comments(file: descriptor_pb2.FileDescriptorProto) -> _Comments:
    """Looks up what stands before an element, by its path in the file (see SourceCodeInfo)."""
    found = {tuple(at.path): at.leading_comments for at in file.source_code_info.location if at.leading_comments}
    return lambda path: "\n".join(line.strip() for line in found.get(path, "").strip().splitlines())


def _option(proto: Any, extension: Any) -> Any:
    """What the contract says with one of its options; its default when it doesn't."""
    return proto.options.Extensions[extension]


def _nested(
    messages: Iterable[descriptor_pb2.DescriptorProto], outer: str, path: _Path
) -> Iterator[tuple[str, _Path, descriptor_pb2.DescriptorProto]]:
    """Messages and those declared in them, with their full names and their paths in the file; no entries of maps."""
    for index, proto in enumerate(messages):
        if not proto.options.map_entry:
            name, here = f"{outer}.{proto.name}", (*path, index)
            yield name, here, proto
            yield from _nested(proto.nested_type, name, (*here, 3))


def _messages(
    file: descriptor_pb2.FileDescriptorProto, comments: _Comments, known: Mapping[str, Message]
) -> Iterator[Message]:
    for name, path, proto in _nested(file.message_type, file.package, (4,)):
        entries = {f".{name}.{entry.name}": entry for entry in proto.nested_type if entry.options.map_entry}
        fields = [
            _field(proto, field, entries.get(field.type_name), comments((*path, 2, index)))
            for index, field in enumerate(proto.field)
        ]
        oneofs = (
            Oneof(
                name=oneof.name,
                fields=tuple(field.name for field in fields if field.oneof == oneof.name),
                required=_option(oneof, options_pb2.one_required),
            )
            for oneof in proto.oneof_decl
        )
        yield Message(
            name=name,
            fields=MappingProxyType({field.name: field for field in fields}),
            oneofs=MappingProxyType({oneof.name: oneof for oneof in oneofs if oneof.fields}),
            comment=comments(path),
            known=known,
        )


def _field(
    message: descriptor_pb2.DescriptorProto,
    proto: descriptor_pb2.FieldDescriptorProto,
    entry: descriptor_pb2.DescriptorProto | None,
    comment: str,
) -> Field:
    said: Any = proto.options.Extensions
    behaviours = said[field_behavior_pb2.field_behavior]
    one = proto if entry is None else entry.field[1]
    repeated = proto.label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    in_oneof = proto.HasField("oneof_index") and not proto.proto3_optional
    return Field(
        name=proto.name,
        number=proto.number,
        type=_type(one),
        type_name=one.type_name.removeprefix("."),
        repeated=repeated and entry is None,
        key_type=_type(entry.field[0]) if entry is not None else "",
        oneof=message.oneof_decl[proto.oneof_index].name if in_oneof else "",
        presence=proto.proto3_optional or in_oneof or (_type(one) == "message" and not repeated),
        required=field_behavior_pb2.REQUIRED in behaviours,
        output_only=field_behavior_pb2.OUTPUT_ONLY in behaviours,
        immutable=field_behavior_pb2.IMMUTABLE in behaviours or said[options_pb2.change_not_served],
        change_not_served=said[options_pb2.change_not_served],
        default_value=said[options_pb2.default_value],
        not_served=said[options_pb2.not_served],
        rule=said[options_pb2.rule],
        ref=said[options_pb2.ref],
        in_bytes=said[options_pb2.in_bytes],
        long_text=said[options_pb2.long_text],
        comment=comment,
    )


def _type(proto: descriptor_pb2.FieldDescriptorProto) -> Type:
    return cast(Type, _TYPES[proto.type])


def _enums(file: descriptor_pb2.FileDescriptorProto, comments: _Comments) -> Iterator[Enum]:
    declared: list[tuple[str, _Path, Any]] = [(file.package, (5,), file.enum_type)]
    declared += [(name, (*path, 4), p.enum_type) for name, path, p in _nested(file.message_type, file.package, (4,))]
    for outer, path, enums in declared:
        for index, proto in enumerate(enums):
            yield _enum(proto, outer, (*path, index), comments)


def _enum(proto: descriptor_pb2.EnumDescriptorProto, outer: str, path: _Path, comments: _Comments) -> Enum:
    prefix = snake(proto.name).upper() + "_"
    return Enum(
        name=f"{outer}.{proto.name}",
        values=tuple(
            Value(
                name=value.name,
                short=value.name.removeprefix(prefix).lower().replace("_", "-"),
                number=value.number,
                not_served=_option(value, options_pb2.value_not_served),
                comment=comments((*path, 2, index)),
            )
            for index, value in enumerate(proto.value)
        ),
        comment=comments(path),
    )


def _classes(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, tuple[str, str]]]:
    """Where the generated code of each message and enum is."""
    module = file.name.removesuffix(".proto").replace("/", ".") + "_pb2"
    names = [f"{file.package}.{enum.name}" for enum in file.enum_type]
    for name, _, proto in _nested(file.message_type, file.package, ()):
        names += [name, *(f"{name}.{enum.name}" for enum in proto.enum_type)]
    return ((name, (module, name.removeprefix(f"{file.package}."))) for name in names)


def _services(
    file: descriptor_pb2.FileDescriptorProto, comments: _Comments, messages: Mapping[str, Message]
) -> Iterator[Service]:
    plurals = {message.name: _option(message, options_pb2.kind).plural for message in file.message_type}
    for index, proto in enumerate(file.service):
        name, kind = f"{file.package}.{proto.name}", proto.name.removesuffix("Service")
        plural = plurals.get(kind, "").title().replace("-", "")
        methods = (
            _method(method, name, kind, plural, comments((6, index, 2, position)), messages)
            for position, method in enumerate(proto.method)
        )
        yield Service(name, MappingProxyType({m.verb: m for m in methods}), comments((6, index)))


def _method(
    proto: descriptor_pb2.MethodDescriptorProto,
    service: str,
    kind: str,
    plural: str,
    comment: str,
    messages: Mapping[str, Message],
) -> Method:
    verb = proto.name.removesuffix(plural).removesuffix(kind) or proto.name
    rule = _option(proto, annotations_pb2.http)
    if proto.client_streaming:
        raise ValueError(f"{proto.name} reads a stream, which REST and gRPC-Web know nothing of")
    return Method(
        name=proto.name,
        path=f"/{service}/{proto.name}",
        verb=snake(verb).replace("_", "-"),
        request=messages[proto.input_type.removeprefix(".")],
        response=proto.output_type.removeprefix("."),
        streams=proto.server_streaming,
        access=_option(proto, options_pb2.access),
        http=tuple(
            Http(cast(HttpMethod, method), getattr(binding, method), binding.body)
            for binding in (rule, *rule.additional_bindings)
            if (method := binding.WhichOneof("pattern"))
        ),
        comment=comment,
    )


def _kinds(
    file: descriptor_pb2.FileDescriptorProto, messages: Mapping[str, Message], services: Mapping[str, Service]
) -> Iterator[Kind]:
    for proto in file.message_type:
        option = _option(proto, options_pb2.kind)
        if not option.plural:
            continue
        name = f"{file.package}.{proto.name}"
        service = services.get(f"{name}Service")
        if service is None:
            raise ValueError(f"the resource {proto.name} has no {proto.name}Service in its package")
        yield Kind(
            name=proto.name,
            noun=snake(proto.name),
            nouns=option.plural.replace("-", "_"),
            plural=option.plural,
            message=messages[name],
            service=service,
            columns=tuple(option.columns),
            uniques=tuple(Unique(tuple(unique.fields), unique.unless) for unique in option.unique),
            converges=option.converges,
        )
