"""Who we are for a cluster, and by what we know it: the client's arguments for TLS and SASL."""

import ssl

from daemon.broker.access import Access
from daemon.broker.secrets import secret
from daemon.core.errors import BrokerError


def security(access: Access) -> dict[str, object]:
    """Return the arguments; raises BrokerError where a file or a token endpoint cannot be used."""
    made: dict[str, object] = {"security_protocol": access.protocol.upper()}
    if access.protocol in {"ssl", "sasl_ssl"}:
        made["ssl_context"] = _context(access)
    if access.mechanism is not None:
        made["sasl_mechanism"] = access.mechanism
    if access.oauth is not None:
        from daemon.broker.oauth import provider

        made["sasl_oauth_token_provider"] = tokens = provider(access.oauth, access.request_timeout)
        tokens.token()
    elif access.password_file is not None:
        # RFC 5802 writes these two in another way within a name; kafka-python 3.0.12 leaves that to its caller.
        scram = (access.mechanism or "").startswith("SCRAM")
        made["sasl_plain_username"] = (
            access.username.replace("=", "=3D").replace(",", "=2C") if scram else access.username
        )
        made["sasl_plain_password"] = secret(access.password_file)
    return made


def _context(access: Access) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = access.check_hostname
    if access.ca_file is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(access.ca_file)
        except OSError as error:  # ssl's errors are among them
            raise BrokerError(f"{access.ca_file} (ca_file) cannot be used: {_why(error, 'it is no PEM')}.") from error
    if access.certificate_file is not None:
        # With no password at all OpenSSL would ask for one at the terminal.
        password = secret(access.key_password_file) if access.key_password_file else ""
        try:
            context.load_cert_chain(access.certificate_file, access.key_file, password)
        except OSError as error:
            lock = f"{access.key_password_file} does not open it" if password else "key_password_file is not set"
            why = _why(error, f"one of them is no PEM, or the key is locked and {lock}")
            pair = f"{access.certificate_file} (certificate_file) with {access.key_file} (key_file)"
            raise BrokerError(f"{pair} cannot be used: {why}.") from error
    return context


def _why(error: OSError, unsaid: str) -> str:
    """Return what OpenSSL or the system says; of a file that is no PEM, or a wrong password, OpenSSL says nothing."""
    if isinstance(error, ssl.SSLError):
        return error.reason.lower().replace("_", " ") if error.reason else unsaid
    return error.strerror or unsaid
