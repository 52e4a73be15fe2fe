"""The gateway's options, and Envoy's configuration: envoy.yaml with their values."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from google.protobuf import any_pb2, descriptor_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped,unused-ignore]
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from kowa import contract

TEMPLATE: Final = Path(__file__).with_name("envoy.yaml")
MIB: Final = 1 << 20


class Options(BaseSettings):
    """Serves gRPC, gRPC-Web and REST in front of Kahuna. Each option may come from the environment: GATEWAY_LISTEN."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", cli_kebab_case=True, cli_hide_none_type=True, cli_prog_name="python -m gateway"
    )

    listen: str | None = Field(None, description="the users' listener, with TLS: 0.0.0.0:443")
    certificate: Path | None = Field(None, description="the PEM chain of the TLS listener")
    key: Path | None = Field(None, description="the PEM key of the TLS listener")
    plain: str | None = Field(None, description="a listener without TLS, on a loopback address: 127.0.0.1:8080")
    kahuna: str = Field("127.0.0.1:7440", description="Kahuna's replicas, with commas between")
    admin: str | None = Field(None, description="Envoy's admin interface: a loopback host:port, or a path for a socket")
    concurrency: int = Field(2, ge=1, description="worker threads")
    max_connections: int = Field(10_000, ge=1, description="connections at once")
    max_memory_mib: int = Field(1024, ge=128, description="Envoy's memory, above which calls are refused")
    log_level: str = Field("warn", description="Envoy's log level: trace, debug, info, warn, error")
    run_dir: Path = Field(
        Path("/run/kowabunga-gateway"), description="the folder of the rendered configuration, for its owner only"
    )

    @property
    def descriptors(self) -> Path:
        """The file with the result of `descriptor_set`."""
        return self.run_dir / "descriptors.binpb"

    @property
    def bodies(self) -> Path:
        """The file with the result of `bodies.script`."""
        return self.run_dir / "bodies.lua"


def bootstrap(options: Options) -> dict[str, Any]:
    """Envoy's bootstrap configuration.

    Raises ValueError when an address is malformed, the TLS listener has no certificate, there is no listener, or the
    plain listener or the admin interface would not be on a loopback address.
    """
    if options.listen and not (options.certificate and options.key):
        raise ValueError("--listen serves TLS and needs --certificate and --key")
    if not (options.listen or options.plain):
        raise ValueError("nothing to listen on: give --listen with --certificate and --key, or --plain")
    admin = options.admin or ""
    values = {
        "admin": {"pipe": {"path": admin}} if admin.startswith("/") else admin and _loopback("admin interface", admin),
        "listen": options.listen and address(options.listen),
        "plain": options.plain and _loopback("plain listener", options.plain),
        "certificate": str(options.certificate),
        "key": str(options.key),
        "descriptors": str(options.descriptors),
        "bodies": str(options.bodies),
        "services": list(contract.load().services),
        "kahuna": [{"endpoint": {"address": address(replica.strip())}} for replica in options.kahuna.split(",")],
        "max_connections": options.max_connections,
        "max_memory": options.max_memory_mib * MIB,
    }
    config: dict[str, Any] = _filled(yaml.safe_load(TEMPLATE.read_text()), values)
    if not options.admin:
        del config["admin"]
    listeners = [listener for listener in config["static_resources"]["listeners"] if listener["address"]]
    config["static_resources"]["listeners"] = listeners
    for listener in listeners:
        http = listener["filter_chains"][0]["filters"][0]["typed_config"]
        routes = http["route_config"]["virtual_hosts"][0]["routes"]
        grpc = routes.pop()
        routes += [grpc | {"match": {"prefix": f"/{name}."}} for name in (*contract.PACKAGES, "grpc.reflection")]
    return config


def _filled(part: Any, values: Mapping[str, Any]) -> Any:
    """A part of the template, with each `$name` replaced by its value."""
    if isinstance(part, dict):
        return {key: _filled(item, values) for key, item in part.items()}
    if isinstance(part, list):
        return [_filled(item, values) for item in part]
    return values[part[1:]] if isinstance(part, str) and part.startswith("$") else part


def address(text: str) -> dict[str, Any]:
    """Envoy's form of `host:port` and `[v6]:port`. Raises ValueError for any other text."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not host:port, such as 127.0.0.1:8443")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _loopback(listener: str, text: str) -> dict[str, Any]:
    """Envoy's form of a loopback address, which only this machine can reach."""
    parsed = address(text)
    host = parsed["socket_address"]["address"]
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback:
        raise ValueError(f"the {listener} must be on a loopback address, not {host}")
    return parsed


def descriptor_set() -> bytes:
    """The contracts and the error details, without comments, for the transcoder."""
    files = contract.file_set()
    names = {file.name for file in files.file}
    for module in (any_pb2, duration_pb2, error_details_pb2, status_pb2):
        if module.DESCRIPTOR.name not in names:
            module.DESCRIPTOR.CopyToProto(files.file.add())
    for file in files.file:
        file.ClearField("source_code_info")
    return descriptor_pb2.FileDescriptorSet(file=files.file).SerializeToString()
