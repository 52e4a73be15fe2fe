"""A real Envoy in front of Kahuna, with a certificate of a CA made for the test."""

import contextlib
import datetime
import ipaddress
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic_settings import CliApp

from deploy.programs import free_port, running
from gateway.config import Options
from gateway.main import prepare
from tests.gateway.recorder import Recording, recording
from tests.sdk.fixtures import Kahuna, cloud, fake_kahuna, kahuna, wanted_instance

__all__ = ["cloud", "fake_kahuna", "kahuna", "wanted_instance"]


@dataclass(frozen=True)
class Gateway:
    """The addresses on which a gateway listens, each as host:port, and the CA of its certificate."""

    plain: str
    tls: str
    ca: Path
    admin: str


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1, its key and its CA, as PEM files."""

    certificate: Path
    key: Path
    ca: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """One certificate for all tests."""
    directory = tmp_path_factory.mktemp("tls")
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.datetime.now(datetime.UTC)

    def sign(subject: x509.Name, public: ec.EllipticCurvePublicKey, *extensions: x509.ExtensionType) -> bytes:
        builder = x509.CertificateBuilder(
            ca_name, subject, public, x509.random_serial_number(), now, now + datetime.timedelta(hours=1)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    files = Certificate(directory / "tls.crt", directory / "tls.key", directory / "ca.crt")
    files.ca.write_bytes(sign(ca_name, ca_key.public_key(), x509.BasicConstraints(ca=True, path_length=None)))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    files.certificate.write_bytes(sign(name, key.public_key(), x509.SubjectAlternativeName([address])))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@pytest.fixture
def gateway(kahuna: Kahuna, certificate: Certificate, tmp_path: Path) -> Iterator[Gateway]:
    """A ready Envoy in front of `kahuna`."""
    options = ["--certificate", str(certificate.certificate), "--key", str(certificate.key)]
    with serving(kahuna.endpoint, tmp_path / "gateway", *options) as (plain, tls, admin):
        yield Gateway(plain=plain, tls=tls, ca=certificate.ca, admin=admin)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    """An Envoy in front of a Kahuna that only records its requests."""
    new_recording = Recording(httpx.Client(), [])
    with recording(new_recording.calls) as kahuna, serving(kahuna, tmp_path_factory.mktemp("gateway")) as (plain, _, _):
        new_recording.rest.base_url = httpx.URL(f"http://{plain}")
        with new_recording.rest:
            yield new_recording


@contextlib.contextmanager
def serving(kahuna: str, run_dir: Path, *options: str) -> Iterator[tuple[str, str, str]]:
    """A ready Envoy. Yields the addresses of its plain listener, its TLS listener (if any) and its admin interface."""
    arguments, addresses = _arguments_and_addresses(kahuna, run_dir, *options)
    with envoy([sys.executable, "-m", "gateway", *arguments], addresses[2]):
        yield addresses


@contextlib.contextmanager
def serving_with_limits(kahuna: str, run_dir: Path, *options: str, **limits: str) -> Iterator[tuple[str, str, str]]:
    """A ready Envoy with other limits, by their names in its configuration."""
    command, addresses = prepared(kahuna, run_dir, *options)
    config = run_dir / "envoy.json"
    for name, value in limits.items():
        changed, count = re.subn(rf'"{name}": ".*?"', f'"{name}": "{value}"', config.read_text())
        assert count, f"envoy.yaml has no {name}"
        config.write_text(changed)
    with envoy(command, addresses[2]):
        yield addresses


def prepared(kahuna: str, run_dir: Path, *options: str) -> tuple[list[str], tuple[str, str, str]]:
    """Writes the configuration; returns the command that serves it, and the addresses on which it will listen."""
    arguments, addresses = _arguments_and_addresses(kahuna, run_dir, *options)
    return prepare(CliApp.run(Options, cli_args=arguments)), addresses


def envoy(command: list[str], admin: str) -> AbstractContextManager[object]:
    """Runs a gateway until the end of the context; its admin interface has reported that it is ready."""
    return running(command, lambda: _is_ok(f"http://{admin}/ready"), "the gateway")


def _arguments_and_addresses(kahuna: str, run_dir: Path, *options: str) -> tuple[list[str], tuple[str, str, str]]:
    plain, tls, admin = (f"127.0.0.1:{port}" for port in (free_port(), free_port(), free_port()))
    listen = ["--listen", tls] if "--certificate" in options else []
    addresses = ["--kahuna", kahuna, "--plain", plain, "--admin", admin, *listen]
    return [*addresses, "--run-dir", str(run_dir), "--concurrency", "1", *options], (plain, tls, admin)


@pytest.fixture
def rest(gateway: Gateway, kahuna: Kahuna) -> Iterator[httpx.Client]:
    """A client of the REST API, with the admin key."""
    with httpx.Client(base_url=f"http://{gateway.plain}", headers={"authorization": f"Bearer {kahuna.key}"}) as client:
        yield client


def _is_ok(url: str) -> bool:
    try:
        return httpx.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
