"""A certificate authority of a test, and what it certifies."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_NEVER = serialization.NoEncryption()


def _name(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in parts])


@attrs.frozen
class Authority:
    """directory: where its files and those of whom it certifies are written."""

    directory: Path
    key: ec.EllipticCurvePrivateKey = attrs.field(factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def path(self) -> Path:
        """Its own certificate."""
        path = self.directory / "ca.pem"
        if not path.exists():
            name = _name((NameOID.COMMON_NAME, "ca"))
            constraints = x509.BasicConstraints(ca=True, path_length=0)
            made = self._builder(name, self.key.public_key()).add_extension(constraints, critical=True)
            usage = x509.KeyUsage(*(False,) * 5, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False)
            made = made.add_extension(usage, critical=True)
            path.write_bytes(made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path

    def certify(self, file: str, *names: tuple[x509.ObjectIdentifier, str], days: int = 1) -> tuple[Path, Path]:
        """(certificate, key) of a server at 127.0.0.1, or of a client with this subject, in files that are written anew."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(*(names or ((NameOID.COMMON_NAME, file),)))
        here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
        made = self._builder(subject, key.public_key(), days).add_extension(here, critical=False)
        certificate_path, key_path = self.directory / f"{file}.pem", self.directory / f"{file}-key.pem"
        certificate_path.write_bytes(made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, _NEVER))
        return certificate_path, key_path

    def revoke(self, *certificates: Path, hours: int = 1) -> Path:
        """The list of what it has taken back, written anew. hours: until another one is due."""
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateRevocationListBuilder().issuer_name(_name((NameOID.COMMON_NAME, "ca")))
        made = made.last_update(now - datetime.timedelta(days=1)).next_update(now + datetime.timedelta(hours=hours))
        for path in certificates:
            number = x509.load_pem_x509_certificate(path.read_bytes()).serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now).build()
            made = made.add_revoked_certificate(revoked)
        path = self.directory / "crl.pem"
        path.write_bytes(made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path

    @staticmethod
    def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int = 1) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(_name((NameOID.COMMON_NAME, "ca")))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
        )
