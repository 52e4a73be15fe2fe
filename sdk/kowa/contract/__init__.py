"""The contracts as data: kinds, services, methods, fields, rules, comments, read from `descriptors.binpb`.

SDK, kowactl, gateway and server all derive from here what the contracts say. Nothing of it needs grpc.
"""

from collections.abc import Iterable, Iterator, Mapping
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
PACKAGES: Final = ("kowa.v2",)  # whose services and messages clients speak

Type = Literal["bool", "bytes", "double", "enum", "float", "int32", "int64", "message", "string", "uint32", "uint64"]
HttpMethod = Literal["get", "post", "put", "patch", "delete"]
ElementKey = int | str | None  # of an element of a list, of a value of a map, of a value that is alone


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    name: str
    type: Type  # of one value: of a list's elements, of a map's values
    type_name: str  # the full name of its message or enum, else empty
    repeated: bool  # a list; false for a map
    is_map: bool
    oneof: str  # the oneof it is one of, else empty
    presence: bool  # unset can be told from the default
    required: bool
    output_only: bool
    immutable: bool  # stays as it was created
    change_not_served: bool  # only for now
    default_value: str  # what stands in it when it is left out; empty when nothing does
    not_served: bool  # nothing acts on it yet
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

    fields: tuple[Field, ...]  # from the message's own down to the one that holds them
    name: str  # its path as masks and filters write it: `members.agent`
    kind: str  # whose ids it holds
    repeated: bool  # there may be several: it, or what it is in, is a list or a map
    output_only: bool  # it, or what it is in, is the server's to fill
    immutable: bool  # it, or what it is in, stays as it was created

    def find(self, message: Stub) -> Iterator[tuple[str, str]]:
        """Where a message names something by it, and the ids: `("members[1].agent", "...")`. Not what is empty."""
        found: Iterable[tuple[str, Any]] = [("", message)]
        for field in self.fields:
            found = [(field_path(at, field.name, key), one) for at, outer in found for key, one in values(outer, field)]
        return ((where, id_) for where, id_ in found if id_)


@dataclass(frozen=True, slots=True)
class Oneof:
    """Fields of which one at most is set."""

    name: str
    fields: tuple[str, ...]
    required: bool  # one must be


@dataclass(frozen=True)
class Message:
    """A message: a resource, a request or a part of one."""

    name: str  # full: `kowa.v2.Instance`, `kowa.v2.Kiwi.Member`
    fields: Mapping[str, Field]
    oneofs: Mapping[str, Oneof]
    comment: str
    known: Mapping[str, "Message"] = dataclass_field(repr=False, compare=False)  # all of the contract, by full name

    @cached_property
    def submessages(self) -> Mapping[str, "Message"]:
        """The messages of the contract that its fields hold, by the fields' names."""
        found = ((field.name, self.known.get(field.type_name)) for field in self.fields.values())
        return {name: message for name, message in found if message is not None}

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """The fields that name resources, in it and in its parts. Raises ValueError when a message contains itself."""
        return tuple(_references(self, (), ()))


@dataclass(frozen=True, slots=True)
class Value:
    """One value of an enum."""

    name: str  # full: `POWER_RUNNING`
    short: str  # for people: `running`
    number: int
    not_served: bool  # nothing acts on it yet
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


@dataclass(frozen=True)
class Kind:
    """A resource: its message and the service that serves it."""

    name: str  # `AgentToken`
    noun: str  # `agent_token`: what fields that hold one are called
    nouns: str  # `agent_tokens`: what lists of it are called
    plural: str  # `agent-tokens`: in paths
    message: Message
    service: Service
    columns: tuple[str, ...]
    uniques: tuple[options_pb2.Unique, ...]
    converges: bool

    @property
    def writable(self) -> tuple[Field, ...]:
        """What a client may say of one; some of it only when it is created."""
        return tuple(field for field in self.message.fields.values() if not field.output_only and field.name != "meta")

    @property
    def command(self) -> str:
        """Its singular in commands: `agent-token`."""
        return self.noun.replace("_", "-")

    @property
    def references(self) -> tuple[Reference, ...]:
        """The fields that name resources, wherever in it they are."""
        return self.message.references

    @cached_property
    def parents(self) -> Mapping[str, str]:
        """What names are unique within: fields and their kinds, of which one counts. Empty where all are unique."""
        names = [name for unique in self.uniques if "name" in unique.fields for name in unique.fields]
        return {name: ref for name in names if (ref := self.message.fields[name].ref)}


@dataclass(frozen=True, slots=True)
class Contract:
    """All of it, by name."""

    kinds: Mapping[str, Kind]  # by name: `AgentToken`
    services: Mapping[str, Service]  # by full name, those without a kind included
    methods: Mapping[str, Method]  # by path: `/kowa.v2.InstanceService/GetInstance`
    messages: Mapping[str, Message]  # by full name
    enums: Mapping[str, tuple[Value, ...]]  # by full name; the first value is the one that says nothing
    pool: DescriptorPool = dataclass_field(repr=False, compare=False)  # what it is read from

    def stub(self, name: str) -> type[Stub]:
        """The generated class of a message, of a third party's too, imported when asked for."""
        file = self.pool.FindMessageTypeByName(name).file
        module = import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
        return cast(type[Stub], attrgetter(name.removeprefix(f"{file.package}."))(module))


@cache
def load() -> Contract:
    """The contract that this package was built with."""
    from kowa.contract.reading import read

    return read(file_set().file, PACKAGES)


def file_set() -> descriptor_pb2.FileDescriptorSet:
    """The descriptors as protoc wrote them, with their comments."""
    return descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())


def values(message: Any, field: Field) -> Iterator[tuple[ElementKey, Any]]:
    """What a field holds: each element of a list by its index, each value of a map by its key, else its one value.

    A message that is not set is none.
    """
    value = getattr(message, field.name)
    if field.is_map:
        # Asked for by its key, a message is the map's own and not a copy.
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


def _references(message: Message, above: tuple[Field, ...], within: tuple[str, ...]) -> Iterator[Reference]:
    if message.name in within:
        raise ValueError(f"{message.name} contains itself: there is no end to what it may name")
    for field in message.fields.values():
        path = (*above, field)
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
