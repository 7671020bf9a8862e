"""`rewarm healthcheck`: whether the daemon on this machine answers, for containers and scripts."""

import argparse
import http.client
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from daemon.cli.output import show, show_json, warn
from daemon.cli.post import connect
from daemon.cli.session import configured
from daemon.core.errors import ConfigurationError
from daemon.sources.http.local import address

if TYPE_CHECKING:
    from daemon.cli.session import Commands

SECONDS = 3.0
OK = 200


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `/livez`, or why there is none."""

    live: bool
    url: str
    status: int | None = None
    message: str = ""


def add(commands: "Commands", common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "exit 0 if the daemon answers on /livez, else 1"
    parser = commands.add_parser("healthcheck", parents=[common], help=text, description=text)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask, and answer by the exit code."""
    configuration = configured(arguments)
    http_settings = configuration.settings.http
    if not http_settings.enabled or not http_settings.port:
        raise ConfigurationError("`http` is switched off or has no fixed port, so nobody can be asked.")
    certificate = configuration.tls.certificate if configuration.tls else None
    health = ask(address(http_settings.host, http_settings.port, secure=certificate is not None), certificate)
    if arguments.json:
        show_json(health)
    elif health.live:
        show(f"{health.url} answers.")
    else:
        warn(f"{health.url} does not answer: {health.message}")
    return 0 if health.live else 1


def ask(server: str, certificate: Path | None) -> Health:
    """Return what `/livez` says."""
    url = f"{server}/livez"
    connection = connect(server, certificate, SECONDS)
    try:
        connection.request("GET", "/livez")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return Health(live=False, url=url, message=str(error) or type(error).__name__)
    finally:
        connection.close()
    return Health(live=status == OK, url=url, status=status, message="" if status == OK else f"status {status}")
