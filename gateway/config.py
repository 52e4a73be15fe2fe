"""The Envoy bootstrap: a pure function of the settings."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf import any_pb2, descriptor_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped,unused-ignore]

from gateway import bodies, replies
from kowa import contract

Json = replies.Json

MIB: Final = 1 << 20
MAX_REQUEST_BYTES: Final = 4 * MIB  # what Kahuna takes in one message
MAX_RESPONSE_BYTES: Final = 32 * MIB  # a list of everything must fit
MEMORY_CHECK_INTERVAL = "0.1s"
STREAM_IDLE_TIMEOUT: Final = "7200s"  # a watch may be silent, a wait may last an hour
CONNECTION_IDLE_TIMEOUT = "60s"  # without a call; an open watch or console is one
HANDSHAKE_TIMEOUT = "10s"
HEADERS_TIMEOUT: Final = "10s"
CALL_TIMEOUT = "120s"  # a call that may bring a large body, from its first byte to the end of the answer
KEEPALIVE: Final = "30s"
MAX_STREAMS_PER_CONNECTION: Final = 1000
MAX_UPSTREAM_STREAMS: Final = 100_000  # each open watch is one

# Headers that only Kahuna may set; they are removed from clients' requests.
INTERNAL_HEADERS: Final = (
    "kowabunga-operation",
    "kowabunga-secret",
    "x-forwarded-client-cert",
    "x-envoy-original-path",
)

# Calls that last as long as their callers like, and send little: a wait, a console, a watch asked for in a body.
LONG_CALL_PATHS: Final = ".*:(wait|watch|console)/*"
LONG_CALL_MAX_BYTES: Final = 64 << 10

BUFFER: Final = "envoy.filters.http.buffer"
FILTER_ENABLED: Final[Json] = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}

# What nearly every GET is. No header tells of a chunked body or of one in HTTP/2, so none is taken there.
NO_BODY: Final[Sequence[Json]] = (
    {"name": ":method", "string_match": {"exact": "GET"}},
    {"name": "content-length", "present_match": True, "invert_match": True},
)
NO_QUERY: Final[Json] = {"name": ":path", "string_match": {"contains": "?"}, "invert_match": True}
NO_BODY_MAX_BYTES: Final = 1  # Envoy has no smaller one; a byte is no JSON object

HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
MANAGER: Final = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


@dataclass(frozen=True)
class Address:
    """Where something listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """`host:port`, `[v6]:port`.

        Raises ValueError, naming the text.
        """
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{text!r} is not host:port, such as 127.0.0.1:8443")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def render(self) -> Json:
        """As Envoy writes it."""
        return {"socket_address": {"address": self.host, "port_value": self.port}}


@dataclass(frozen=True)
class Tls:
    """A listener that users reach."""

    address: Address
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Settings:
    """What a gateway is made of."""

    descriptors: Path  # what `descriptor_set` returned, in a file
    bodies: Path  # what `bodies.script` returned, in a file
    services: Sequence[str]  # full names, what is served
    kahuna: Sequence[Address]  # its replicas
    tls: Tls | None = None
    plain: Address | None = None  # without TLS: loopback only
    admin: Address | Path | None = None  # loopback, or a Unix socket
    max_connections: int = 10_000
    max_memory: int = 1024 * MIB  # bytes of heap


def descriptor_set() -> bytes:
    """The contracts without comments, and the details that errors carry, for the transcoder."""
    files = contract.file_set()
    known = {file.name for file in files.file}
    for more in (any_pb2, duration_pb2, error_details_pb2, status_pb2):
        if more.DESCRIPTOR.name not in known:
            more.DESCRIPTOR.CopyToProto(files.file.add())
    for file in files.file:
        file.ClearField("source_code_info")
    return descriptor_pb2.FileDescriptorSet(file=files.file).SerializeToString()


def bootstrap(settings: Settings) -> Json:
    """What Envoy is started with.

    Raises ValueError when nothing would listen, or when the plain listener or the admin interface could be reached from
    elsewhere.
    """
    for what, address in (("plain listener", settings.plain), ("admin interface", settings.admin)):
        if isinstance(address, Address) and not address.is_loopback:
            raise ValueError(f"the {what} must be on a loopback address, not {address.host}")
    listeners = []
    if settings.tls:
        listeners.append(_listener("tls", settings, settings.tls.address, _tls_context(settings.tls)))
    if settings.plain:
        listeners.append(_listener("plain", settings, settings.plain, {}))
    if not listeners:
        raise ValueError("nothing to listen on: give --listen with --certificate and --key, or --plain")
    config: Json = {
        "static_resources": {"listeners": listeners, "clusters": [_cluster(settings.kahuna)]},
        "overload_manager": _overload(settings.max_connections, settings.max_memory),
    }
    if settings.admin:
        where = settings.admin
        config["admin"] = {"address": where.render() if isinstance(where, Address) else {"pipe": {"path": str(where)}}}
    return config


def _listener(name: str, settings: Settings, address: Address, security: Json) -> Json:
    manager = {
        "stat_prefix": name,
        "codec_type": "AUTO",
        "use_remote_address": True,  # x-forwarded-for ends with the true peer; x-envoy-* of clients are dropped
        # Nobody is internal; an empty list would leave loopback so, and its x-envoy-* headers would be believed.
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        "forward_client_cert_details": "SANITIZE",
        "normalize_path": True,
        "merge_slashes": True,
        "stream_idle_timeout": STREAM_IDLE_TIMEOUT,
        "request_headers_timeout": HEADERS_TIMEOUT,
        "common_http_protocol_options": {
            "headers_with_underscores_action": "REJECT_REQUEST",
            "idle_timeout": CONNECTION_IDLE_TIMEOUT,
        },
        "http2_protocol_options": {
            "max_concurrent_streams": MAX_STREAMS_PER_CONNECTION,
            "connection_keepalive": {"interval": KEEPALIVE, "timeout": KEEPALIVE},
        },
        "early_header_mutation_extensions": [_without_internal_headers()],
        "local_reply_config": replies.local_replies(MAX_REQUEST_BYTES, LONG_CALL_MAX_BYTES),
        "route_config": _routes(),
        "http_filters": [
            _extension("envoy.filters.http.grpc_web", "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb", {}),
            *_body_check(settings.bodies),
            _transcoder(settings.descriptors, settings.services),
            _extension("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", {}),
        ],
    }
    return {
        "name": name,
        "address": address.render(),
        "per_connection_buffer_limit_bytes": MAX_RESPONSE_BYTES,
        "filter_chains": [
            {"filters": [_extension("envoy.filters.network.http_connection_manager", MANAGER, manager)], **security}
        ],
    }


def _tls_context(tls: Tls) -> Json:
    context = {
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificates": [
                {"certificate_chain": {"filename": str(tls.certificate)}, "private_key": {"filename": str(tls.key)}}
            ],
        }
    }
    kind = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    return {
        "transport_socket": _extension("envoy.transport_sockets.tls", kind, context),
        "transport_socket_connect_timeout": HANDSHAKE_TIMEOUT,
    }


def _body_check(script: Path) -> list[Json]:
    """Bounds a body, and reads it and the query; each route switches on what it needs."""
    lua = {"default_source_code": {"filename": str(script)}}
    filters = [
        _extension(BUFFER, "envoy.extensions.filters.http.buffer.v3.Buffer", {"max_request_bytes": MAX_REQUEST_BYTES}),
        _extension(bodies.FILTER_NAME, "envoy.extensions.filters.http.lua.v3.Lua", lua),
    ]
    return [{**each, "disabled": True} for each in filters]


def _body_checked(max_bytes: int) -> Json:
    """Both filters, switched on for a route."""
    return {BUFFER: _at_most(max_bytes), bodies.FILTER_NAME: FILTER_ENABLED}


def _at_most(max_bytes: int) -> Json:
    """The filter that bounds a body, switched on for a route."""
    kind = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute"
    return {"@type": f"type.googleapis.com/{kind}", "buffer": {"max_request_bytes": max_bytes}}


def _transcoder(descriptors: Path, services: Sequence[str]) -> Json:
    config = {
        "proto_descriptor": str(descriptors),
        "services": list(services),
        "print_options": {
            "preserve_proto_field_names": True,
            "always_print_primitive_fields": True,  # full objects: a zero is a value
            "stream_newline_delimited": True,
        },
        "convert_grpc_status": True,
        "query_param_unescape_plus": True,  # as HTML forms and most clients write a space
        "match_incoming_request_route": True,
        "max_request_body_size": MAX_REQUEST_BYTES,
        "max_response_body_size": MAX_RESPONSE_BYTES,
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
    }
    kind = "envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder"
    return _extension("envoy.filters.http.grpc_json_transcoder", kind, config)


def _routes() -> Json:
    to_kahuna = {
        "cluster": "kahuna",
        "timeout": "0s",  # a slow creation is no error; the caller's own deadline counts
        "max_stream_duration": {"grpc_timeout_header_max": "0s"},
        "hash_policy": [{"header": {"header_name": "authorization"}}],  # one caller sees one replica
        "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 2},  # it never reached Kahuna
    }
    return {
        "virtual_hosts": [
            {
                "name": "kowabunga",
                "domains": ["*"],
                "routes": [
                    {
                        "match": {"prefix": "/api/", "headers": [replies.NOT_GRPC, *NO_BODY, NO_QUERY]},
                        "route": to_kahuna,
                        "typed_per_filter_config": {BUFFER: _at_most(NO_BODY_MAX_BYTES)},
                    },
                    {
                        "match": {"prefix": "/api/", "headers": [replies.NOT_GRPC, *NO_BODY]},
                        "route": to_kahuna,
                        "typed_per_filter_config": _body_checked(NO_BODY_MAX_BYTES),
                    },
                    {
                        "match": {"safe_regex": {"regex": f"/api/{LONG_CALL_PATHS}"}, "headers": [replies.NOT_GRPC]},
                        "route": to_kahuna,
                        "typed_per_filter_config": _body_checked(LONG_CALL_MAX_BYTES),
                    },
                    {
                        "match": {"prefix": "/api/", "headers": [replies.NOT_GRPC]},
                        # No caller's grpc-timeout counts here: a body that comes slowly would last as long as it says.
                        "route": to_kahuna | {"max_stream_duration": {"max_stream_duration": CALL_TIMEOUT}},
                        "typed_per_filter_config": _body_checked(MAX_REQUEST_BYTES),
                    },
                    *(
                        {"match": {"prefix": f"/{package}."}, "route": to_kahuna}
                        for package in (*contract.PACKAGES, "grpc.reflection")  # and what tells of them
                    ),
                ],
            }
        ],
    }


def _cluster(replicas: Sequence[Address]) -> Json:
    protocol = {
        "explicit_http_config": {
            "http2_protocol_options": {"connection_keepalive": {"interval": KEEPALIVE, "timeout": KEEPALIVE}}
        }
    }
    return {
        "name": "kahuna",
        "type": "STRICT_DNS",
        "lb_policy": "MAGLEV",
        "connect_timeout": "2s",
        "per_connection_buffer_limit_bytes": MAX_RESPONSE_BYTES,
        "circuit_breakers": {
            "thresholds": [{"max_requests": MAX_UPSTREAM_STREAMS, "max_pending_requests": MAX_UPSTREAM_STREAMS}]
        },
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {"@type": f"type.googleapis.com/{HTTP_OPTIONS}", **protocol}
        },
        "load_assignment": {
            "cluster_name": "kahuna",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at.render()}} for at in replicas]}],
        },
    }


def _without_internal_headers() -> Json:
    kind = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    mutations = [{"remove": name} for name in INTERNAL_HEADERS]
    return _extension("envoy.http.early_header_mutation.header_mutation", kind, {"mutations": mutations})


def _overload(connections: int, memory: int) -> Json:
    """Before memory ends, calls are refused, and streams that hold most of it are reset; others go on."""
    monitors = "envoy.extensions.resource_monitors"
    many = f"{monitors}.downstream_connections.v3.DownstreamConnectionsConfig"
    heap = "envoy.resource_monitors.fixed_heap"

    def at(part: float) -> list[Json]:
        return [{"name": heap, "threshold": {"value": part}}]

    def from_(part: float, to: float) -> list[Json]:
        return [{"name": heap, "scaled": {"scaling_threshold": part, "saturation_threshold": to}}]

    actions = {
        "shrink_heap": at(0.8),
        "disable_http_keepalive": at(0.85),
        "stop_accepting_requests": at(0.9),
        "reset_high_memory_stream": from_(0.9, 0.98),  # HTTP/2 alone has it
    }
    return {
        "refresh_interval": MEMORY_CHECK_INTERVAL,
        "resource_monitors": [
            _extension(
                "envoy.resource_monitors.global_downstream_max_connections",
                many,
                {"max_active_downstream_connections": connections},
            ),
            _extension(heap, f"{monitors}.fixed_heap.v3.FixedHeapConfig", {"max_heap_size_bytes": memory}),
        ],
        "actions": [{"name": f"envoy.overload_actions.{name}", "triggers": when} for name, when in actions.items()],
        "loadshed_points": [
            {"name": "envoy.load_shed_points.http1_server_abort_dispatch", "triggers": at(0.97)},
        ],
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 20},  # streams that hold a MiB or more
    }


def _extension(name: str, kind: str, config: Json) -> Json:
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/{kind}", **config}}
