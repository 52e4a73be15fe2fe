"""The platform's own CA and the server's certificate."""

import ipaddress
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kowa.files import write

CA_DAYS, SERVER_DAYS, RENEW_DAYS = 3650, 397, 30
_CA_USAGE = x509.KeyUsage(
    digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip

_Files = tuple[Path, Path]
"""A certificate and its key."""


class Certificates(NamedTuple):
    """Files in PEM: the CA that clients trust, and the server's certificate with its key (mode 0600)."""

    ca: Path
    certificate: Path
    key: Path


def ensure(folder: Path, names: Sequence[str]) -> Certificates:
    """Returns the certificates in a folder. Creates missing ones; renews the server's for new names or near its end."""
    files = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    ca_key = folder / "ca.key"
    if not (files.ca.exists() and ca_key.exists()):
        extensions = {x509.BasicConstraints(ca=True, path_length=0): True, _CA_USAGE: True}
        _issue("Kowabunga CA", CA_DAYS, extensions, (files.ca, ca_key))
    if not (files.key.exists() and files.certificate.exists() and _is_valid(files, names)):
        extensions = {
            x509.SubjectAlternativeName(map(_alternative_name, names)): False,
            x509.BasicConstraints(ca=False, path_length=None): True,
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]): False,
        }
        _issue("Kahuna", SERVER_DAYS, extensions, (files.certificate, files.key), ca=(files.ca, ca_key))
    return files


def _issue(
    name: str, days: int, extensions: Mapping[x509.ExtensionType, bool], files: _Files, ca: _Files | None = None
) -> None:
    """Creates a certificate and its key, self-signed without a CA. `extensions` map to whether they are critical."""
    key = signing_key = ec.generate_private_key(ec.SECP256R1())
    subject = issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    if ca is not None:
        issuer = x509.load_pem_x509_certificate(ca[0].read_bytes()).subject
        ca_key = serialization.load_pem_private_key(ca[1].read_bytes(), password=None)
        assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
        signing_key = ca_key
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days))
    for extension, critical in extensions.items():
        builder = builder.add_extension(extension, critical)
    pem, format_ = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    write(files[1], key.private_bytes(pem, format_, serialization.NoEncryption()), mode=0o600)
    write(files[0], builder.sign(signing_key, hashes.SHA256()).public_bytes(pem), mode=0o644)


def _is_valid(files: Certificates, names: Sequence[str]) -> bool:
    """Whether the certificate is current and has the names and the key, which a crash may have separated."""
    found = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    subjects = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    is_fresh = found.not_valid_after_utc > datetime.now(UTC) + timedelta(days=RENEW_DAYS)
    return is_fresh and found.public_key() == key.public_key() and set(subjects) == set(map(_alternative_name, names))


def _alternative_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
