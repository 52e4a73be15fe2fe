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
from tests.sdk.fixtures import Kahuna, cloud, fake, kahuna, shop

__all__ = ["cloud", "fake", "kahuna", "shop"]


@dataclass(frozen=True)
class Gateway:
    """Where one listens."""

    plain: str
    tls: str
    ca: Path
    admin: str


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1, its key and who vouches for it, as PEM files."""

    certificate: Path
    key: Path
    ca: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """One for all tests."""
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

    made = Certificate(directory / "tls.crt", directory / "tls.key", directory / "ca.crt")
    made.ca.write_bytes(sign(ca_name, ca_key.public_key(), x509.BasicConstraints(ca=True, path_length=None)))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made.certificate.write_bytes(sign(name, key.public_key(), x509.SubjectAlternativeName([address])))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


@pytest.fixture
def gateway(kahuna: Kahuna, certificate: Certificate, tmp_path: Path) -> Iterator[Gateway]:
    """An Envoy that is ready, in front of `kahuna`."""
    options = ["--certificate", str(certificate.certificate), "--key", str(certificate.key)]
    with serving(kahuna.endpoint, tmp_path / "gateway", *options) as (plain, tls, admin):
        yield Gateway(plain=f"http://{plain}", tls=tls, ca=certificate.ca, admin=admin)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    """An Envoy in front of a Kahuna that only keeps what it is sent."""
    made = Recording(httpx.Client(), [])
    with recording(made.calls) as kahuna, serving(kahuna, tmp_path_factory.mktemp("gateway")) as (plain, _, _):
        made.rest.base_url = httpx.URL(f"http://{plain}")
        with made.rest:
            yield made


@contextlib.contextmanager
def serving(kahuna: str, run_dir: Path, *options: str) -> Iterator[tuple[str, str, str]]:
    """An Envoy that is ready: its plain listener, the one with TLS when there is a certificate, the admin interface."""
    words, places = _words(kahuna, run_dir, *options)
    with envoy([sys.executable, "-m", "gateway", *words], places[2]):
        yield places


@contextlib.contextmanager
def serving_with_limits(kahuna: str, run_dir: Path, *options: str, **limits: str) -> Iterator[tuple[str, str, str]]:
    """One with other limits, by the names that Envoy has for them."""
    command, places = prepared(kahuna, run_dir, *options)
    config = run_dir / "envoy.json"
    for name, value in limits.items():
        changed, count = re.subn(rf'"{name}": ".*?"', f'"{name}": "{value}"', config.read_text())
        assert count, f"envoy.yaml has no {name}"
        config.write_text(changed)
    with envoy(command, places[2]):
        yield places


def prepared(kahuna: str, run_dir: Path, *options: str) -> tuple[list[str], tuple[str, str, str]]:
    """The command that serves a configuration which stands in files, and where it will listen."""
    words, places = _words(kahuna, run_dir, *options)
    return prepare(CliApp.run(Options, cli_args=words)), places


def envoy(command: list[str], admin: str) -> AbstractContextManager[object]:
    """A gateway whose admin interface says that it is ready."""
    return running(command, lambda: _answers(f"http://{admin}/ready"), "the gateway")


def _words(kahuna: str, run_dir: Path, *options: str) -> tuple[list[str], tuple[str, str, str]]:
    plain, tls, admin = (f"127.0.0.1:{port}" for port in (free_port(), free_port(), free_port()))
    listen = ["--listen", tls] if "--certificate" in options else []
    words = ["--kahuna", kahuna, "--plain", plain, "--admin", admin, "--run-dir", str(run_dir), "--concurrency", "1"]
    return [*words, *listen, *options], (plain, tls, admin)


@pytest.fixture
def rest(gateway: Gateway, kahuna: Kahuna) -> Iterator[httpx.Client]:
    """The REST API, with the admin key."""
    with httpx.Client(base_url=gateway.plain, headers={"authorization": f"Bearer {kahuna.key}"}) as client:
        yield client


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
