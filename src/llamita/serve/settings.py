"""Settings: what the operator of a server decides, as `llamita serve` takes it. Says no word about a single request."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from llamita.errors import SettingError

MAX_DRAIN_SECONDS = 86_400
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Settings:
    """How to serve.

    name: what clients call the model. api_key: "" serves everybody. cors_origins: pages of these origins may call; "*": any.
    allowed_hosts: names by which clients may call this machine besides its addresses and localhost; "*": any.
    template: the chat template, by name or as Jinja source; "" takes the model's own. strict_model: whether a request must
    call the model by its name. drain_seconds: how long answers may go on once the server is asked to stop.
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 8080
    api_key: str = ""
    insecure: bool = False
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    template: str = ""
    strict_model: bool = False
    drain_seconds: float = 30.0

    def validate(self) -> "Settings":
        """Return the settings; raise SettingError for an open door, and for what no header can carry."""
        if not is_loopback(self.host) and not self.api_key and not self.insecure:
            raise SettingError(
                f"--host {self.host}: found no --api-key, expected one where other machines can connect; "
                "give one, or --insecure to serve everybody"
            )
        if self.api_key and not (self.api_key.isascii() and self.api_key.isprintable() and " " not in self.api_key):
            raise SettingError("--api-key: found spaces or characters beyond ASCII, expected what a header can carry")
        if not self.name or not self.name.isprintable():
            raise SettingError(f"--alias: found {self.name!r}, expected a name that can be printed")
        if not 0 <= self.drain_seconds <= MAX_DRAIN_SECONDS:
            raise SettingError(f"--drain: found {self.drain_seconds:g}, expected 0 to {MAX_DRAIN_SECONDS} seconds")
        for name in self.allowed_hosts:
            if name != "*" and not _HOST_NAME.fullmatch(name) and not is_address(name):
                raise SettingError(
                    f"--allowed-host: found {name!r}, expected a name without a port, such as llama.example, or *"
                )
        for origin in self.cors_origins:
            if origin not in ("*", "null") and origin != (expected := origin_of(origin)):
                raise SettingError(f"--cors-origin: found {origin!r}, expected {expected}, as browsers send it, or *")
        return self


def origin_of(url: str) -> str:
    """The origin of a URL as browsers send it: scheme and host in small letters, and a port that is not the usual one."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if not host or not (_HOST_NAME.fullmatch(host) or is_address(host)) or not scheme:
        return "an origin such as https://me.example"
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}" + ("" if port in (None, _DEFAULT_PORTS.get(scheme)) else f":{port}")


def is_address(name: str) -> bool:
    """Whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
