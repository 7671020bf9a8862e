"""The files that HTTP needs, of tokens and of TLS: tried before anything is served."""

import ssl

from daemon.config import Configuration
from daemon.core.errors import ConfigurationError
from daemon.settings import TlsSettings
from daemon.tokens import Tokens


def check(configuration: Configuration) -> Tokens:
    """Return the configured tokens; raises ConfigurationError for a file, of a token or of TLS, that is no good."""
    tokens = Tokens(configuration.tokens, open_to_all=configuration.settings.http.local)
    if configuration.tls is not None:
        _check_certificate(configuration.tls)
    return tokens


def _check_certificate(tls: TlsSettings) -> None:
    for name, file in (("certificate", tls.certificate), ("key", tls.key)):
        if not file.is_file():
            raise ConfigurationError(f"http.tls.{name}: there is no file {file}.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"http.tls: {tls.certificate} and {tls.key} are no certificate in PEM with its key, "
            f"without a password: {error}."
        ) from error


def _no_password() -> str:
    """Answer instead of the person whom OpenSSL would ask at the terminal."""
    return ""
