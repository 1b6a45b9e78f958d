"""A self-made certificate: browsers give microphone and camera only to secure pages."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_VALID = timedelta(days=365)
_RENEW = timedelta(days=7)


def self_made(directory: Path, host: str) -> tuple[Path, Path]:
    """Files of a certificate and its key for ``host`` and this machine's names and addresses.

    They are made once and kept in ``directory``; again when they run out or a name is new.
    """
    certificate, key = directory / "omni.crt", directory / "omni.key"
    names = _names(host)
    if not (key.exists() and _covers(certificate, names)):
        directory.mkdir(parents=True, exist_ok=True)
        _make(certificate, key, names)
    return certificate, key


def _names(host: str) -> list[str]:
    names = {"localhost", "127.0.0.1", "::1", socket.gethostname()}
    if host not in ("0.0.0.0", "::"):
        names.add(host)
    with contextlib.suppress(OSError):
        names.update(str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None))
    names.add(outward_address() or "")
    return sorted(name for name in names if name and "%" not in name)


def outward_address() -> str | None:
    """The machine's address in its network; None without one."""
    # No packet is sent: this only asks which address a way out would have.
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return None


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.encode("idna").decode())


def _covers(certificate: Path, names: list[str]) -> bool:
    try:
        made = x509.load_pem_x509_certificate(certificate.read_bytes())
        known = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    fresh = made.not_valid_after_utc - datetime.now(UTC) > _RENEW
    return fresh and {_general(name) for name in names} <= set(known)


def _make(certificate: Path, key: Path, names: list[str]) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Omni on this machine")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName(map(_general, names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    secret = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key.unlink(missing_ok=True)
    with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secret)
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
