"""Pictures from http and https addresses: bounded in size and time, and from public hosts only unless told otherwise.

A host is resolved once, what it resolves to is checked, and the connection goes to that very address: so that a name
that changes its meaning in between leads nowhere else. Every redirect is an address like the first.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from urllib.parse import quote, urljoin, urlsplit

from facefeat_jax.data._decoder_limits import BadImageError
from facefeat_jax.system.text import format_size

MAX_BYTES = 2**26
"""Larger answers are refused."""

_SECONDS = 30.0  # for a picture, with all redirects
_REDIRECTS = 5
_REDIRECTING = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


def is_address(name: str) -> bool:
    """Returns whether a name is an http or https address."""
    return bool(_ADDRESS.match(name))


def fetch(address: str, *, allow_private: bool = False, seconds: float = _SECONDS) -> bytes:
    """Returns what lies at an address.

    Args:
      address: begins with http:// or https://.
      allow_private: whether hosts that are not on the public internet (this machine, its network) are asked as well.
      seconds: how long all of it may take.

    Raises:
      BadImageError: it can't be fetched, is too large or slow, or its host may not be asked.
    """
    until = time.monotonic() + seconds
    for _ in range(_REDIRECTS + 1):
        try:
            answer = _ask(address, until, allow_private)
        except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
            reason = "it took too long" if time.monotonic() >= until else _reason(error)
            raise BadImageError(f"can't be fetched: {' '.join(reason.split())}"[:200]) from error
        if isinstance(answer, bytes):
            return answer
        try:
            following = urljoin(address, answer)
        except ValueError as error:
            raise BadImageError("can't be fetched: redirected to what is no address") from error
        if not is_address(following) or (address.lower().startswith("https") and not following.startswith("https")):
            raise BadImageError(f"can't be fetched: redirected to {following:.100}")
        address = following
    raise BadImageError(f"can't be fetched: more than {_REDIRECTS} redirects")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted, {error.verify_message}; SSL_CERT_FILE can name a file of authorities"
    return str(error) or type(error).__name__


def _ask(address: str, until: float, allow_private: bool) -> bytes | str:
    """Returns the content, or where it has gone to."""
    parts = urlsplit(address)
    if not parts.hostname or parts.username is not None:
        raise BadImageError("can't be fetched: the address must name a host, and no user")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    ip = _resolved(parts.hostname, port, allow_private)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.hostname, port, context=ssl.create_default_context())
    else:
        connection = http.client.HTTPConnection(parts.hostname, port)
    left = until - time.monotonic()
    # By number: the library would resolve the name again.
    connection._create_connection = lambda *_: socket.create_connection((ip, port), max(left, 0.1))  # type: ignore[attr-defined]
    with contextlib.closing(connection):
        connection.connect()
        # A timeout of the socket begins anew with every byte that comes.
        watch = threading.Timer(max(until - time.monotonic(), 0.1), _hang_up, [connection.sock])
        watch.start()
        try:
            path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
            query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=?~')}" if parts.query else ""
            connection.request("GET", path + query, headers={"Accept-Encoding": "identity", "User-Agent": "facefeat"})
            response = connection.getresponse()
            if response.status in _REDIRECTING and (target := response.headers.get("Location")):
                return target
            if response.status != 200:
                raise BadImageError(f"can't be fetched: {response.status} {response.reason}")
            content = response.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES or (response.length or 0) > MAX_BYTES:
                raise BadImageError(f"can't be fetched: larger than {format_size(MAX_BYTES)}")
            if response.length:  # what the headers promised and did not come
                raise BadImageError("can't be fetched: cut short")
            if time.monotonic() >= until:  # hung up on: that looks like the end of an answer without a length
                raise TimeoutError
            return content
        finally:
            watch.cancel()


def _hang_up(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended by itself
        connected.shutdown(socket.SHUT_RDWR)


def _resolved(host: str, port: int, allow_private: bool) -> str:
    """Returns the number of a host that may be asked."""
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not allow_private and (private := [ip for ip in found if not _is_public(ip)]):
        raise BadImageError(
            f"not fetched: {host} is {private[0]}, which is no public address; --allow-private-addresses permits it"
        )
    return found[0]


def _is_public(ip: str) -> bool:
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        # What stands for an IPv4 address is as public as that is.
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(str(inner))
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved
