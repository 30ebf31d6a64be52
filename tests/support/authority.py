"""An authority for certificates, and what it has signed."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

KEY_PASSWORD = "password-of-the-tls-key-1234"


@dataclass(frozen=True)
class Authority:
    """The authority, and the server's certificate and key, as files; the key of `locked` has a password."""

    authority: Path
    cert: Path
    key: Path
    locked: Path
    signer: ec.EllipticCurvePrivateKey

    def renew(self) -> int:
        """Write another certificate and key; returns its serial number."""
        key, cert = _signed("localhost", _name("authority"), self.signer)
        _write_key(self.key, key)
        self.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        return cert.serial_number

    def client(self, folder: Path) -> Path:
        """A client's certificate and key in one file."""
        key, cert = _signed("client", _name("authority"), self.signer)
        file = folder / "client.pem"
        _write_key(file, key)
        file.write_bytes(file.read_bytes() + cert.public_bytes(serialization.Encoding.PEM))
        return file


def new_authority(folder: Path) -> Authority:
    key, cert = _signed("authority", None, None)
    made = Authority(folder / "ca.pem", folder / "cert.pem", folder / "key.pem", folder / "locked.pem", key)
    made.authority.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    made.renew()
    plain = serialization.load_pem_private_key(made.key.read_bytes(), None)
    assert isinstance(plain, ec.EllipticCurvePrivateKey)
    _write_key(made.locked, plain, serialization.BestAvailableEncryption(KEY_PASSWORD.encode()))
    return made


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _signed(
    name: str, issuer: x509.Name | None, signer: ec.EllipticCurvePrivateKey | None
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer or _name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return key, builder.sign(signer or key, hashes.SHA256())


def _write_key(
    file: Path,
    key: ec.EllipticCurvePrivateKey,
    encryption: serialization.KeySerializationEncryption | None = None,
) -> None:
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            encryption or serialization.NoEncryption(),
        )
    )
