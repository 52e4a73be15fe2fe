"""The contracts as data: kinds, services, methods, fields, rules, comments, read from `descriptors.binpb`.

SDK, kowactl, gateway and server all use the contracts through this package. It does not import grpc.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import cache, cached_property
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Literal, cast

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message as Stub

from kowa.formats import quoted
from kowa.formats import snake as snake
from kowa.v2 import options_pb2

DESCRIPTORS: Final = Path(__file__).parent.parent / "descriptors.binpb"
PACKAGES: Final = ("kowa.v2",)  # the packages of the public API

Type = Literal["bool", "bytes", "double", "enum", "float", "int32", "int64", "message", "string", "uint32", "uint64"]
HttpMethod = Literal["get", "post", "put", "patch", "delete"]
ElementKey = int | str | None  # a list index, a map key, or None for a single value


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    name: str
    type: Type  # of a list's elements, of a map's values
    type_name: str  # the full name of its message or enum, else empty
    repeated: bool  # a list; false for a map
    is_map: bool
    oneof: str  # the oneof that contains it, else empty
    presence: bool  # unset can be told from the default
    required: bool
    output_only: bool
    immutable: bool  # can be set only at creation
    change_not_served: bool  # can't be changed yet; a later version will allow it
    default_value: str  # the value used when the field is omitted; empty if none
    not_served: bool  # not implemented yet: Kahuna refuses it
    rule: options_pb2.Rule
    ref: str  # the kind whose id it holds, else empty
    in_bytes: bool  # a number of bytes
    long_text: bool  # often longer than a line
    comment: str

    @property
    def is_collection(self) -> bool:
        """Whether it is a list or a map."""
        return self.repeated or self.is_map


@dataclass(frozen=True, slots=True)
class Reference:
    """A field that holds ids of a kind, anywhere in a message."""

    fields: tuple[Field, ...]  # from the message's own field down to the one with the ids
    name: str  # its path in masks and filters: `members.agent`
    kind: str  # the kind whose ids it holds
    repeated: bool  # it, or a field that contains it, is a list or a map
    output_only: bool  # it, or a field that contains it, is set by the server
    immutable: bool  # it, or a field that contains it, can be set only at creation

    def find(self, message: Stub) -> Iterator[tuple[str, str]]:
        """Yields (path, id) for each non-empty id in this field of a message: `("members[1].agent", "...")`."""
        found: Iterable[tuple[str, Any]] = [("", message)]
        for field in self.fields:
            name = field.name
            found = [(field_path(path, name, key), value) for path, one in found for key, value in values(one, field)]
        return ((path, id_) for path, id_ in found if id_)


@dataclass(frozen=True, slots=True)
class Oneof:
    """Fields of which at most one is set."""

    name: str
    fields: tuple[str, ...]
    required: bool  # one must be set


@dataclass(frozen=True)
class Message:
    """A message: a resource, a request or a part of one."""

    name: str  # the full name: `kowa.v2.Instance`, `kowa.v2.Kiwi.Member`
    comment: str
    all_messages: Mapping[str, "Message"] = dataclass_field(repr=False, compare=False)  # the contract's, by full name
    read_fields: Callable[[], Mapping[str, Field]] = dataclass_field(repr=False, compare=False)  # on first use
    read_oneofs: Callable[[Mapping[str, Field]], Mapping[str, Oneof]] = dataclass_field(repr=False, compare=False)

    @cached_property
    def fields(self) -> Mapping[str, Field]:
        """Its fields by name, in the order of the contract."""
        return self.read_fields()

    @cached_property
    def oneofs(self) -> Mapping[str, Oneof]:
        """Its oneofs by name."""
        return self.read_oneofs(self.fields)

    @cached_property
    def submessages(self) -> Mapping[str, "Message"]:
        """The contract's messages in its fields, by field name."""
        found = ((field.name, self.all_messages.get(field.type_name)) for field in self.fields.values())
        return {name: message for name, message in found if message is not None}

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """The fields that refer to resources, also in submessages. Raises ValueError when a message contains itself."""
        return tuple(_references(self, (), ()))


@dataclass(frozen=True, slots=True)
class Value:
    """One value of an enum."""

    name: str  # the full name: `POWER_RUNNING`
    short: str  # for people: `running`
    number: int
    not_served: bool  # not implemented yet: Kahuna refuses it
    comment: str


@dataclass(frozen=True, slots=True)
class Http:
    """The REST call that a method maps to."""

    method: HttpMethod
    path: str
    body: str  # the request field in the body, `*` for the whole request, empty for none


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service."""

    name: str  # `StartInstance`
    path: str  # `/kowa.v2.InstanceService/StartInstance`
    verb: str  # `list`, `get`, `create`, `update`, `delete`, `watch`, or a custom verb in kebab-case: `start`
    request: Message
    response: str  # the full name of a message, which may be `google.protobuf.Empty`
    streams: bool  # the response is a stream
    access: options_pb2.Access
    http: tuple[Http, ...]
    comment: str

    @property
    def mutates(self) -> bool:
        """Whether the method changes something: then its request has validate_only."""
        return "validate_only" in self.request.fields


@dataclass(frozen=True, slots=True)
class Service:
    """A service and its methods by verb, in the order of the contract."""

    name: str  # the full name: `kowa.v2.InstanceService`
    methods: Mapping[str, Method]


@dataclass(frozen=True)
class Kind:
    """A resource: its message and the service that serves it."""

    name: str  # `AgentToken`
    noun: str  # `agent_token`: the singular, as a field name
    nouns: str  # `agent_tokens`: the plural, as a field name
    plural: str  # `agent-tokens`: the plural, in REST paths
    message: Message
    service: Service
    columns: tuple[str, ...]  # of tables, as field paths
    uniques: tuple[options_pb2.Unique, ...]
    converges: bool  # an agent brings it about: it is READY once applied

    @property
    def writable(self) -> tuple[Field, ...]:
        """The fields that a client may set, some of them only at creation."""
        return tuple(field for field in self.message.fields.values() if not field.output_only and field.name != "meta")

    @property
    def command(self) -> str:
        """The singular, in commands: `agent-token`."""
        return self.noun.replace("_", "-")

    @cached_property
    def parents(self) -> Mapping[str, str]:
        """Field -> kind of the parent within which names are unique; one is set. Empty: names are unique everywhere."""
        names = [name for unique in self.uniques if "name" in unique.fields for name in unique.fields]
        return {name: ref for name in names if (ref := self.message.fields[name].ref)}


@dataclass(frozen=True, slots=True)
class Contract:
    """The whole contract, indexed by name."""

    kinds: Mapping[str, Kind]  # by name: `AgentToken`
    services: Mapping[str, Service]  # by full name, including those without a kind
    methods: Mapping[str, Method]  # by path: `/kowa.v2.InstanceService/GetInstance`
    messages: Mapping[str, Message]  # by full name
    enums: Mapping[str, tuple[Value, ...]]  # by full name; the first value is UNSPECIFIED
    pool: DescriptorPool = dataclass_field(repr=False, compare=False)  # the descriptors it was read from

    def stub(self, name: str) -> type[Stub]:
        """Imports and returns the generated class of a message, which may be a third party's."""
        file = self.pool.FindMessageTypeByName(name).file
        module = import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
        return cast(type[Stub], attrgetter(name.removeprefix(f"{file.package}."))(module))


@cache
def load() -> Contract:
    """Reads the contract that this package was built with."""
    from kowa.contract.reading import read

    return read(file_set().file, PACKAGES)


def file_set() -> descriptor_pb2.FileDescriptorSet:
    """Reads the descriptors that protoc wrote, with their comments."""
    return descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())


def values(message: Any, field: Field) -> Iterator[tuple[ElementKey, Any]]:
    """Yields the values of a field: list elements by index, map values by key, a single value by None.

    An unset message field yields nothing.
    """
    value = getattr(message, field.name)
    if field.is_map:
        # Index the map: value[key] is the live message, not a copy.
        yield from ((key, value[key]) for key in sorted(value))
    elif field.repeated:
        yield from enumerate(value)
    elif field.type != "message" or message.HasField(field.name):
        yield None, value


def field_path(parent: str, name: str, key: ElementKey = None) -> str:
    """The path of a value, for people: `members[1].agent`, `labels['x']`. `parent` is the path of its message."""
    path = f"{parent}.{name}" if parent else name
    if key is None:
        return path
    return f"{path}[{quoted(key) if isinstance(key, str) else key}]"


def _references(message: Message, parents: tuple[Field, ...], within: tuple[str, ...]) -> Iterator[Reference]:
    if message.name in within:
        raise ValueError(f"{message.name} contains itself, so its references have no end")
    for field in message.fields.values():
        path = (*parents, field)
        if field.ref:
            yield Reference(
                fields=path,
                name=".".join(each.name for each in path),
                kind=field.ref,
                repeated=any(each.is_collection for each in path),
                output_only=any(each.output_only for each in path),
                immutable=any(each.immutable for each in path),
            )
        elif field.name in message.submessages:
            yield from _references(message.submessages[field.name], path, (*within, message.name))
