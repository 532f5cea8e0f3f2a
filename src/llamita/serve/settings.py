"""Settings: what the operator of a server decides, as `llamita serve` takes it. Says no word about a single request."""

import ipaddress
from dataclasses import dataclass

from llamita.errors import SettingError


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
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
