"""Where webhooks may go: the form of a URL, and the addresses behind its host. Pure; nothing is resolved here.

What is not plainly right is refused rather than repaired, so that no two readers of a URL can understand it
differently. Address blocks are those of the IANA special-purpose registries (RFC 6890 and its successors), and the
metadata services of clouds.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address

LONGEST_URL: Final = 2048
_FIRST_FREE_PORT: Final = 1024
_PORTS: Final = {"http": 80, "https": 443}

_URL: Final = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?)",
    re.IGNORECASE | re.ASCII,  # without ASCII, letters of other scripts fold into k and s
)
_NAME: Final = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LONGEST_NAME: Final = 253
# A last label like these makes some readers take the whole name for an IPv4 address.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

_NEVER: Final = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8",  # "this host"
        "169.254.0.0/16",  # link-local, and metadata services
        "168.63.129.16/32",  # Azure's wire server
        "100.100.100.200/32",  # Alibaba Cloud's metadata service
        "192.0.0.192/32",  # Oracle Cloud's metadata service
        "224.0.0.0/4",  # multicast
        "255.255.255.255/32",  # broadcast
        "::/96",  # unspecified, loopback excepted below, and IPv4-compatible
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64, local use
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local, deprecated
        "ff00::/8",  # multicast
        "fd00:ec2::254/128",  # Amazon's metadata service
        "fd20:ce::254/128",  # Google's metadata service
    )
)
"""Refused even for hosts on the allow-list: no receiver is there, and IPv4 inside IPv6 would slip past the rest."""

_NOT_PUBLIC: Final = tuple(
    ip_network(block)
    for block in (
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "240.0.0.0/4",  # reserved
        "2001::/23",  # protocol assignments: ORCHID, benchmarking and others
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_GLOBAL_V6: Final = IPv6Network("2000::/3")
_LOOPBACK_V6: Final = IPv6Address("::1")


class UrlRefused(ValueError):
    """Webhooks must not go there; the message is one line for people and never repeats the URL."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, read once and for all.

    Attributes:
        scheme: ``http`` or ``https``.
        host: name in lower case, or address as text without brackets.
        address: the host where it is an address.
        port: the one to connect to.
        path: path and query as they go out.
    """

    scheme: str
    host: str
    address: Address | None
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Value of the ``Host`` header."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def read(url: str) -> Target:
    """The parts of a URL.

    Raises:
        UrlRefused: it is not plainly an http or https URL of a host.
    """
    if len(url) > LONGEST_URL:
        raise UrlRefused(f"must have at most {LONGEST_URL} characters")
    if "@" in url.partition("://")[2].partition("/")[0].partition("?")[0]:
        raise UrlRefused("must not have a user name or password in it")
    match = _URL.fullmatch(url)
    if match is None:
        raise UrlRefused(
            "must be an https URL of a host, in ASCII and without a fragment; write a name of other letters as xn--..."
        )
    scheme, host = match["scheme"].lower(), match["host"].lower()
    address = _literal(host)
    if address is None and not _is_name(host):
        raise UrlRefused("must name its host plainly: a DNS name without a dot at its end, or an address as a.b.c.d")
    port = int(match["port"] or _PORTS[scheme])
    if not 0 < port < 1 << 16:
        raise UrlRefused("must have a port from 1 to 65535")
    path = match["target"]
    if not path.startswith("/"):
        path = f"/{path}"
    return Target(scheme, host if address is None else str(address), address, port, path)


def _literal(host: str) -> Address | None:
    """The address that a host plainly is; ``ipaddress`` takes neither octal, nor hexadecimal, nor short forms."""
    try:
        if host.startswith("["):
            return IPv6Address(host[1:-1])
        return IPv4Address(host)
    except ValueError:
        return None


def _is_name(host: str) -> bool:
    last = host.rpartition(".")[2]
    return len(host) <= _LONGEST_NAME and _NAME.fullmatch(host) is not None and not _NUMBER.fullmatch(last)


@dataclass(frozen=True, slots=True)
class AllowList:
    """Receivers that are not public, as the operator names them.

    Attributes:
        names: exact host names; whatever they resolve to is allowed, but for what never is.
        networks: blocks of addresses; allowed for any host that leads there.
    """

    names: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> "AllowList":
        """Read names, addresses and networks.

        Raises:
            ValueError: an entry is none of them.
        """
        names, networks = set(), []
        for entry in entries:
            try:
                networks.append(ip_network(entry))
            except ValueError:
                name = entry.lower()
                if not _is_name(name):
                    raise ValueError(f"{entry!r} is no host name, address or network") from None
                names.add(name)
        return cls(frozenset(names), tuple(networks))

    def has(self, target: Target) -> bool:
        """Whether the host itself is listed."""
        if target.address is not None:
            return self._covers(target.address)
        return target.host in self.names

    def permits(self, host: str, address: Address) -> bool:
        """Whether a connection to an address of a host may be made.

        Args:
            host: as in ``Target``.
            address: what it is or resolves to.
        """
        if address != _LOOPBACK_V6 and _within(address, _NEVER):
            return False
        return host in self.names or self._covers(address) or _is_public(address)

    def _covers(self, address: Address) -> bool:
        return _within(address, self.networks)


def _within(address: Address, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _GLOBAL_V6:
        return False
    return not _within(address, _NOT_PUBLIC)


def check(url: str, allowed: AllowList) -> Target:
    """A URL whose form, scheme, port and, where it is one, address are right.

    Raises:
        UrlRefused: see there.
    """
    target = read(url)
    if allowed.has(target):
        if target.address is not None and not allowed.permits(target.host, target.address):
            raise UrlRefused(NOT_PUBLIC)
        return target
    if target.scheme != "https":
        raise UrlRefused("must be https; http is only for hosts that the operator lists")
    if target.port != _PORTS["https"] and target.port < _FIRST_FREE_PORT:
        raise UrlRefused(f"must have port 443, or one from {_FIRST_FREE_PORT} on")
    if target.address is not None and not allowed.permits(target.host, target.address):
        raise UrlRefused(NOT_PUBLIC)
    return target


NOT_PUBLIC: Final = "leads to an address that is not public"
"""Said of all such addresses alike: which kind it is would tell strangers what names mean in here."""


def parsed(address: str) -> Address:
    """An address as a resolver gives it, possibly with a scope behind ``%``.

    Raises:
        ValueError: it is none.
    """
    return ip_address(address.partition("%")[0])
