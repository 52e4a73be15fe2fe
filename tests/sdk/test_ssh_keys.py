"""SSH public keys as lines of authorized_keys, and the messages for everything else."""

import pytest

from kowa.ssh_keys import public_key_problem
from tests.ssh_keys import ED25519, PRIVATE, blob, long_key

RSA = f"ssh-rsa {blob(b'ssh-rsa', b'e', b'n' * 256)}"
ECDSA = f"ecdsa-sha2-nistp256 {blob(b'ecdsa-sha2-nistp256', b'nistp256', b'q' * 65)}"
SK = f"sk-ssh-ed25519@openssh.com {blob(b'sk-ssh-ed25519@openssh.com', b'k' * 32, b'ssh:')}"
SK_ECDSA = (
    f"sk-ecdsa-sha2-nistp256@openssh.com {blob(b'sk-ecdsa-sha2-nistp256@openssh.com', b'nistp256', b'q' * 65, b'ssh:')}"
)
# A certificate has numbers after its strings.
CERTIFICATE = (
    f"ssh-ed25519-cert-v01@openssh.com {blob(b'ssh-ed25519-cert-v01@openssh.com', b'nonce', b'k' * 32)[:-4]}AAAA"
)

KEYS = [
    ED25519,
    RSA,
    ECDSA,
    SK,
    SK_ECDSA,
    CERTIFICATE,
    f"ssh-dss {blob(b'ssh-dss', b'p', b'q', b'g', b'y')}",
    f"ssh-new@example.org {blob(b'ssh-new@example.org', b'what a later OpenSSH has')}",
    f"{ED25519} me@example",
    f"{ED25519} Zoë's key, the PRIVATE KEY is at home 😀",
    f"{ED25519}\n",
    f"{ED25519} me@example\r\n",
    f"  {ED25519}\tme",
    f"no-pty {ED25519}",
    f'command="echo \\"hello, world\\"",no-pty,from="10.0.0.0/8,!10.1.0.1" {RSA} deploy',
    f'environment="A=b c" {SK}',
    f'restrict,command="C:\\dir" {ED25519}',
    f'cert-authority,principals="a,b" {ED25519}',
    long_key(8192),
]


@pytest.mark.parametrize("text", KEYS, ids=[key[:40] for key in KEYS])
def test_valid_keys_are_accepted(text: str) -> None:
    assert public_key_problem(text) == ""


NOT_KEYS = [
    # text, message
    ("", "is empty"),
    (" \r\n", "is empty"),
    ("hello", "is no SSH public key"),
    ("hello world", "is no SSH public key"),
    ("me@example", "is no SSH public key"),
    ("# my keys", "is a comment"),
    (PRIVATE, "is a private key"),
    (PRIVATE.replace("\n", " "), "is a private key"),
    (PRIVATE.replace("OPENSSH", "RSA"), "is a private key"),
    (PRIVATE.replace("OPENSSH ", "ENCRYPTED "), "is a private key"),
    (PRIVATE.replace("OPENSSH ", ""), "is a private key"),
    (f"\ufeff{PRIVATE}", "is a private key"),
    (f"{ED25519}\n{PRIVATE}", "is a private key"),
    (f"{ED25519} -----BEGIN OPENSSH PRIVATE KEY----- b3Blbn", "is a private key"),
    ("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n", "is a private key"),
    ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nx", "is a private key"),
    (PRIVATE.splitlines()[1], "is no SSH public key"),
    ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n", "ssh-keygen -i -f FILE"),
    ("-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n", "ssh-keygen -i -m PKCS8 -f FILE"),
    ("-----BEGIN RSA PUBLIC KEY-----\nMIIB\n-----END RSA PUBLIC KEY-----\n", "ssh-keygen -i -m PEM -f FILE"),
    (f"{ED25519}\n{RSA}\n", "has several lines; give each key as an element of its own"),
    (f"# mine\n{ED25519}\n", "has several lines"),
    (f"{ED25519}\r{RSA}", "has several lines"),
    (f"{ED25519}\0", "control characters"),
    (f"{ED25519} me\x1b[2J", "control characters"),
    (f"\ufeff{ED25519}", "byte order mark"),
    ("ssh-ed25519", "is no SSH public key"),
    ("ssh-ed25519 ", "is no SSH public key"),
    ("ssh-ed25519 AAAA", "is cut off or damaged"),
    ("ssh-ed25519 not!base64", "is cut off or damaged"),
    (ED25519[:-4], "is cut off or damaged"),
    (f"{ED25519}AAAA", "is cut off or damaged"),
    (ED25519.replace("ssh-ed25519 ", "ssh-rsa "), "is cut off or damaged"),
    (f"ssh-ed25519 {blob(b'ssh-ed25519', b'k' * 31)}", "is cut off or damaged"),
    (f"ssh-ed25519 {blob(b'ssh-ed25519')}", "is cut off or damaged"),
    (f"ssh-rsa {blob(b'ssh-rsa', b'e')}", "is cut off or damaged"),
    (ED25519.split()[1], "is no SSH public key"),  # without its type
    (f"host.example {ED25519}", "is no SSH public key"),  # as known_hosts has it
    (f"@cert-authority *.example {ED25519}", "is no SSH public key"),
    (f"no-pty, no-user-rc {ED25519}", "is no SSH public key"),
    (f'command="echo {ED25519}', "is no SSH public key"),
    (f"command=echo {ED25519}", "is no SSH public key"),
    (f"“no-pty” {ED25519}", "is no SSH public key"),
    ("ssh-ed25519 " * 600, "is cut off or damaged"),
    ('command="' + '\\"' * 4000, "is no SSH public key"),
]


@pytest.mark.parametrize(("text", "message"), NOT_KEYS, ids=[row[0][:40] for row in NOT_KEYS])
def test_the_message_for_an_invalid_key_does_not_repeat_it(text: str, message: str) -> None:
    problem = public_key_problem(text)
    assert message in problem
    assert problem.isprintable()
    for word in text.split():
        assert len(word) < 12 or word not in problem


def test_the_message_for_a_private_key_recommends_the_public_one() -> None:
    assert "give the public key, in the file whose name ends in .pub" in public_key_problem(PRIVATE)
