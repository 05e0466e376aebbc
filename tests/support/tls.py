"""Servers of the tests behind TLS, with certificates that nobody vouches for."""

from __future__ import annotations

import ssl
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class Tls:
    """A certificate of its own, made by openssl.

    Args:
        folder: Where its files go.
        name: Whom it is for, as ``subjectAltName`` has it.

    Attributes:
        certificate: Its file, which is all that who trusts it needs.
        connections: How many were begun with the server behind it.
    """

    def __init__(self, folder: Path, name: str = "IP:127.0.0.1") -> None:
        self.connections = 0
        self.certificate = folder / "certificate.pem"
        key = folder / "key.pem"
        request = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-subj", "/CN=tests"]
        curve = ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-addext", f"subjectAltName={name}"]
        files = ["-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run([*request, *curve, *files], check=True, capture_output=True)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate, key)

    def before(self, server: Any) -> str:
        """Put it in front of a server that is not running yet; return the server's new URL."""
        http = server._server  # noqa: SLF001  # of any of the tests' servers
        accept = http.get_request

        def get_request() -> tuple[Any, Any]:
            connection, address = accept()
            self.connections += 1
            return self._context.wrap_socket(connection, server_side=True), address

        http.get_request = get_request
        url: str = server.url
        return url.replace("http://", "https://")
