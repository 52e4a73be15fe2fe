"""The contracts of `kowa.v2` as data: kinds, services, methods, fields, rules, comments, read from `descriptors.binpb`.

SDK, kowactl, gateway and server all derive from here what the contracts say. Nothing of it needs grpc.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar, cast

from google.api import annotations_pb2, field_behavior_pb2  # type: ignore[import-untyped,unused-ignore]
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message as Stub

from kowa.v2 import options_pb2

DESCRIPTORS: Final = Path(__file__).parent / "descriptors.binpb"
PACKAGE: Final = "kowa.v2"

Type = Literal["bool", "bytes", "double", "enum", "float", "int32", "int64", "message", "string", "uint32", "uint64"]
HttpMethod = Literal["get", "post", "put", "patch", "delete"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    name: str
    number: int
    type: Type
    type_name: str  # the full name of its message or enum, else empty
    repeated: bool  # a list; false for a map
    is_map: bool
    presence: bool  # unset can be told from the default
    required: bool
    output_only: bool
    immutable: bool
    rule: options_pb2.Rule
    ref: str  # the kind whose id it holds, else empty
    in_bytes: bool  # a number of bytes
    long_text: bool  # often longer than a line
    comment: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message: a resource, a request or a part of one."""

    name: str  # full: `kowa.v2.Instance`
    fields: Mapping[str, Field]
    comment: str


@dataclass(frozen=True, slots=True)
class Value:
    """One value of an enum."""

    name: str  # full: `POWER_RUNNING`
    short: str  # for people: `running`
    number: int
    comment: str


@dataclass(frozen=True, slots=True)
class Enum:
    """An enum; its first value is the one that says nothing."""

    name: str
    values: tuple[Value, ...]
    comment: str


@dataclass(frozen=True, slots=True)
class Http:
    """A method's REST form."""

    method: HttpMethod
    path: str
    body: str  # the request field in the body, `*` for the whole request, empty for none


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service."""

    name: str  # `StartInstance`
    path: str  # `/kowa.v2.InstanceService/StartInstance`
    verb: str  # `list`, `get`, `create`, `update`, `delete`, `watch` or one of its own in kebab-case: `start`
    request: Message
    response: str  # the full name of a message, `google.protobuf.Empty` among them
    streams: bool  # answers with a stream
    converses: bool  # and reads one, too: it has no REST form
    access: options_pb2.Access
    http: tuple[Http, ...]
    comment: str

    @property
    def mutates(self) -> bool:
        """Whether the method changes something: it has a plan."""
        return "validate_only" in self.request.fields


@dataclass(frozen=True, slots=True)
class Service:
    """A service and its methods by verb, in the order of the contract."""

    name: str  # full: `kowa.v2.InstanceService`
    methods: Mapping[str, Method]
    comment: str


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource: its message and the service that serves it."""

    name: str  # `AgentToken`
    noun: str  # `agent_token`: what fields that hold one are called
    nouns: str  # `agent_tokens`: what lists of it are called
    plural: str  # `agent-tokens`: in paths
    message: Message
    service: Service
    columns: tuple[str, ...]
    unique: tuple[str, ...]
    converges: bool

    @property
    def comment(self) -> str:
        """What it is."""
        return self.message.comment

    @property
    def writable(self) -> tuple[Field, ...]:
        """What a client may say of one; some of it only when it is created."""
        return tuple(field for field in self.message.fields.values() if not field.output_only and field.name != "meta")

    @property
    def command(self) -> str:
        """Its singular in commands: `agent-token`."""
        return self.noun.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Contract:
    """All of it, by name."""

    kinds: Mapping[str, Kind]  # by name: `AgentToken`
    services: Mapping[str, Service]  # by full name, those without a kind included
    methods: Mapping[str, Method]  # by path: `/kowa.v2.InstanceService/GetInstance`
    messages: Mapping[str, Message]  # by full name
    enums: Mapping[str, Enum]  # by full name
    modules: Mapping[str, str]  # the Python module of each message and enum, third-party ones included

    def stub(self, name: str) -> type[Stub]:
        """The generated class of a message, imported when asked for."""
        return cast(type[Stub], getattr(import_module(self.modules[name]), name.rpartition(".")[2]))


@cache
def load() -> Contract:
    """The contract that this package was built with."""
    return read(file_set().file)


def file_set() -> descriptor_pb2.FileDescriptorSet:
    """The descriptors as protoc wrote them, with their comments."""
    return descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())


def read(files: Iterable[descriptor_pb2.FileDescriptorProto]) -> Contract:
    """The contract in a set of files.

    Raises ValueError when a resource has no service.
    """
    files = list(files)
    ours = [(file, _comments(file)) for file in files if file.package == PACKAGE]
    messages = _named(
        _message(message, (4, index), comments)
        for file, comments in ours
        for index, message in enumerate(file.message_type)
    )
    services = _named(
        _service(service, (6, index), comments, kinds, messages)
        for file, comments in ours
        for kinds in [_plurals(file)]
        for index, service in enumerate(file.service)
    )
    return Contract(
        kinds=_named(
            _kind(message, messages, services)
            for file, _ in ours
            for message in file.message_type
            if _option(message, options_pb2.kind).plural
        ),
        services=services,
        methods=MappingProxyType({m.path: m for service in services.values() for m in service.methods.values()}),
        messages=messages,
        enums=_named(
            _enum(enum, (5, index), comments) for file, comments in ours for index, enum in enumerate(file.enum_type)
        ),
        modules=MappingProxyType(
            {
                f"{file.package}.{item.name}": file.name.removesuffix(".proto").replace("/", ".") + "_pb2"
                for file in files
                for item in chain[Any](file.message_type, file.enum_type)
            }
        ),
    )


def snake(name: str) -> str:
    """`AgentToken` as `agent_token`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


_Path = tuple[int, ...]
_Comments = Callable[[_Path], str]

_TYPES: Final = {
    number: name.removeprefix("TYPE_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}


_T = TypeVar("_T", Message, Enum, Service, Kind)


def _named(items: Iterator[_T]) -> Mapping[str, _T]:
    return MappingProxyType({item.name: item for item in items})


def _comments(file: descriptor_pb2.FileDescriptorProto) -> _Comments:
    """Looks up what stands before an element, by its path in the file (see SourceCodeInfo)."""
    found = {tuple(at.path): at.leading_comments for at in file.source_code_info.location if at.leading_comments}
    return lambda path: "\n".join(line.strip() for line in found.get(path, "").strip().splitlines())


def _option(proto: Any, extension: Any) -> Any:
    """What the contract says with one of its options; its default when it doesn't."""
    return proto.options.Extensions[extension]


def _plurals(file: descriptor_pb2.FileDescriptorProto) -> dict[str, str]:
    """The plurals of a file's kinds; empty for what is no kind."""
    return {message.name: _option(message, options_pb2.kind).plural for message in file.message_type}


def _message(proto: descriptor_pb2.DescriptorProto, path: _Path, comments: _Comments) -> Message:
    maps = {nested.name for nested in proto.nested_type if nested.options.map_entry}
    return Message(
        name=f"{PACKAGE}.{proto.name}",
        fields=MappingProxyType(
            {
                field.name: _field(field, field.type_name.rpartition(".")[2] in maps, comments((*path, 2, index)))
                for index, field in enumerate(proto.field)
            }
        ),
        comment=comments(path),
    )


def _field(proto: descriptor_pb2.FieldDescriptorProto, is_map: bool, comment: str) -> Field:
    behaviours = _option(proto, field_behavior_pb2.field_behavior)
    kind = cast(Type, _TYPES[proto.type])
    repeated = proto.label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    return Field(
        name=proto.name,
        number=proto.number,
        type=kind,
        type_name=proto.type_name.removeprefix("."),
        repeated=repeated and not is_map,
        is_map=is_map,
        presence=proto.proto3_optional or (kind == "message" and not repeated),
        required=field_behavior_pb2.REQUIRED in behaviours,
        output_only=field_behavior_pb2.OUTPUT_ONLY in behaviours,
        immutable=field_behavior_pb2.IMMUTABLE in behaviours,
        rule=_option(proto, options_pb2.rule),
        ref=_option(proto, options_pb2.ref),
        in_bytes=_option(proto, options_pb2.in_bytes),
        long_text=_option(proto, options_pb2.long_text),
        comment=comment,
    )


def _enum(proto: descriptor_pb2.EnumDescriptorProto, path: _Path, comments: _Comments) -> Enum:
    prefix = snake(proto.name).upper() + "_"
    return Enum(
        name=f"{PACKAGE}.{proto.name}",
        values=tuple(
            Value(
                name=value.name,
                short=value.name.removeprefix(prefix).lower().replace("_", "-"),
                number=value.number,
                comment=comments((*path, 2, index)),
            )
            for index, value in enumerate(proto.value)
        ),
        comment=comments(path),
    )


def _service(
    proto: descriptor_pb2.ServiceDescriptorProto,
    path: _Path,
    comments: _Comments,
    plurals: Mapping[str, str],
    messages: Mapping[str, Message],
) -> Service:
    kind = proto.name.removesuffix("Service")
    plural = plurals.get(kind, "").title().replace("-", "")
    methods = (
        _method(method, proto.name, kind, plural, comments((*path, 2, index)), messages)
        for index, method in enumerate(proto.method)
    )
    return Service(f"{PACKAGE}.{proto.name}", MappingProxyType({m.verb: m for m in methods}), comments(path))


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
    return Method(
        name=proto.name,
        path=f"/{PACKAGE}.{service}/{proto.name}",
        verb=snake(verb).replace("_", "-"),
        request=messages[proto.input_type.removeprefix(".")],
        response=proto.output_type.removeprefix("."),
        streams=proto.server_streaming,
        converses=proto.client_streaming,
        access=_option(proto, options_pb2.access),
        http=tuple(
            Http(cast(HttpMethod, method), getattr(binding, method), binding.body)
            for binding in (rule, *rule.additional_bindings)
            if (method := binding.WhichOneof("pattern"))
        ),
        comment=comment,
    )


def _kind(
    proto: descriptor_pb2.DescriptorProto, messages: Mapping[str, Message], services: Mapping[str, Service]
) -> Kind:
    option = _option(proto, options_pb2.kind)
    service = services.get(f"{PACKAGE}.{proto.name}Service")
    if service is None:
        raise ValueError(f"the resource {proto.name} has no {proto.name}Service in its package")
    return Kind(
        name=proto.name,
        noun=snake(proto.name),
        nouns=option.plural.replace("-", "_"),
        plural=option.plural,
        message=messages[f"{PACKAGE}.{proto.name}"],
        service=service,
        columns=tuple(option.columns),
        unique=tuple(option.unique),
        converges=option.converges,
    )
