"""TLS: the certificates that a process serves with, read from files, and read again when these were replaced."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from server.config.ours import Tls
from server.config.sections import ConfigError

log = logging.getLogger("pollux.tls")

PROTOCOLS = ["http/1.1"]
"""What is offered by ALPN."""
Stamp = tuple[tuple[int, int, int], ...]


@dataclass
class Certificates:
    """The context for new connections. Those that are open keep the certificate that they began with."""

    config: Tls
    context: ssl.SSLContext
    _stamp: Stamp

    @classmethod
    def of(cls, config: Tls) -> Certificates | None:
        """What the config names; None if Pollux is to serve without TLS.

        Raises:
            ConfigError: a file can't be used

        """
        return cls(config, new_context(config), _stamp_of(config)) if config.cert_file else None

    def reload(self, *, only_if_replaced: bool = False) -> bool:
        """Read the files again, for new connections; returns whether they were. May be called in a thread.

        Renewals write a certificate and its key one after the other. So what does not fit together is logged, the old
        pair stays, and the next call tries again.
        """
        try:
            stamp = _stamp_of(self.config)
            if only_if_replaced and stamp == self._stamp:
                return False
            self.context = new_context(self.config)
        except ConfigError as error:
            log.error("the certificate stays as it is: %s", error)  # noqa: TRY400 - the message says it all
            return False
        self._stamp = stamp
        log.info("serving new connections with the certificate in %s, as it is now", self.config.cert_file)
        return True


def new_context(config: Tls) -> ssl.SSLContext:
    """TLS 1.2 or newer, with what Python holds for secure.

    Raises:
        ConfigError: a file is missing, or is no PEM; the key belongs to another certificate, or its password is wrong

    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(PROTOCOLS)
    password = config.key_password.get_secret_value() if config.key_password else ""
    try:
        # A password is always given: without one OpenSSL asks for it at the terminal, and waits.
        context.load_cert_chain(str(config.cert_file), config.key_file, password=password)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"pollux.tls: {config.cert_file} and {config.key_file or 'its key'}: {_why(error)}"
        ) from error
    if config.client_ca_file:
        try:
            context.load_verify_locations(cafile=config.client_ca_file)
        except OSError as error:
            raise ConfigError(f"pollux.tls.client_ca_file: {config.client_ca_file}: {_why(error)}") from error
        # Probes have no certificate, so who shows none is refused later, by an error that says so.
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "the key belongs to another certificate"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return error.strerror or "can't be read"
    # OpenSSL gives no reason that could be told apart, or one of its library's depths.
    return "one is not in PEM format, or pollux.tls.key_password is wrong, or missing"


def _stamp_of(config: Tls) -> Stamp:
    """Changes whenever one of the files is replaced or written.

    Raises:
        ConfigError: one is not there

    """
    found = []
    for name in (config.cert_file, config.key_file, config.client_ca_file):
        if name:
            try:
                state = Path(name).stat()
            except OSError as error:
                raise ConfigError(f"pollux.tls: {name}: {error.strerror}") from error
            found.append((state.st_ino, state.st_mtime_ns, state.st_size))
    return tuple(found)
