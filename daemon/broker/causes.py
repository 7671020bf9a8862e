"""Why a cluster cannot be used: what kafka-python, TLS or the system say of it, as a sentence with what to do."""

import errno
import re
import ssl

from kafka import errors

from daemon.broker.access import Access
from daemon.core.errors import BrokerError

AGAIN = ssl.SSLEOFError, ssl.SSLZeroReturnError
"""Errors of TLS that say no more than that the connection was closed."""
REFUSED = (
    BrokerError,
    errors.SaslAuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    errors.AuthorizationError,
    errors.InvalidReceiveError,
    ssl.SSLError,
    ValueError,  # a server that does not know the password itself (SCRAM)
)
OUR_CERTIFICATE = re.compile(
    r"certificate.required|bad.certificate|unknown.ca|certificate.(unknown|expired|revoked)|handshake.failure",
    re.IGNORECASE,
)


def hopeless(error: BaseException) -> bool:
    """Tell whether another attempt would end the same way."""
    return any(isinstance(each, REFUSED) and not isinstance(each, AGAIN) for each in roots(error))


def roots(error: BaseException) -> list[BaseException]:
    """Return an error with those that it was made of: by `from`, or as its message."""
    found = [error]
    for each in found:
        found += [
            part for part in (each.__cause__, *each.args) if isinstance(part, BaseException) and part not in found
        ]
    return found


def explain(access: Access, error: BaseException) -> str:
    """Return what went wrong and what to do, in sentences without a secret."""
    for each in roots(error):
        said = _of_tls(access, each) if isinstance(each, ssl.SSLError) else _of_the_broker(access, each)
        if said:
            return said
    return _of_the_way(access, str(error).rstrip("."))


def _of_tls(access: Access, error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in {62, 64}:  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
            return (
                f"its certificate is for another name ({error.verify_message.rstrip('.')}). Put a name that is in it "
                "into bootstrap_servers, or have one made that names the brokers as they are advertised."
            )
        trusted = (
            f"{access.ca_file} (ca_file)"
            if access.ca_file
            else "the system's certificate authorities (no ca_file is set)"
        )
        return (
            f"its certificate was not issued by {trusted}, or is not valid ({error.verify_message.rstrip('.')}). "
            "Set ca_file to the authority that signs the brokers' certificates."
        )
    if isinstance(error, AGAIN):
        return f"the connection was closed during the TLS handshake. Is the port one for protocol {access.protocol}?"
    text = str(error)
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        return f"it does not speak TLS at this port. Is the port one for protocol {access.protocol}?"
    if OUR_CERTIFICATE.search(text.replace("_", " ")):
        ours = f"our certificate {access.certificate_file}" if access.certificate_file else "us without a certificate"
        return (
            f"it refused {ours} ({_reason(error)}). Set certificate_file and key_file to a pair "
            "that an authority known to the brokers has signed."
        )
    return f"TLS failed ({_reason(error)})."


def _of_the_broker(access: Access, error: BaseException) -> str:
    if isinstance(error, BrokerError):
        return str(error)
    if isinstance(error, errors.InvalidReceiveError):
        return f"its answer makes no sense. Is the port one for protocol {access.protocol}?"
    if isinstance(error, errors.IllegalSaslStateError):
        return f"it wants no SASL at this port. Is the port one for protocol {access.protocol}?"
    if isinstance(error, errors.UnsupportedSaslMechanismError):
        return f"it does not take the mechanism {access.mechanism} at this port. Set mechanism to one that it takes."
    if isinstance(error, errors.SaslAuthenticationFailedError):
        if access.oauth is not None:
            held = access.oauth.token_file or access.oauth.url
            return f"it refused our token, which is from {held} ({_said(error)}). Is it expired, or meant for others?"
        return (
            f"it refused the user {access.username} or the password in {access.password_file}, for {access.mechanism}. "
            "Compare both with what the cluster knows: is the user known for this mechanism?"
        )
    if isinstance(error, errors.AuthorizationError):
        return f"it does not let us in ({_said(error)}). Allow our user what it asks for."
    if isinstance(error, ValueError) and access.mechanism:
        return f"it did not prove that it knows the password of {access.username} ({_said(error)}). Is it our cluster?"
    return ""


def _of_the_way(access: Access, text: str) -> str:
    """Return what it means that no connection came about, or none that lasted."""
    if f"{errno.ECONNREFUSED} ECONNREFUSED" in text:
        return "the connection is refused. Does the broker run, and are address and port right?"
    if "DNS" in text:
        return "its name is not known here. Mend bootstrap_servers, or the name service."
    if "disconnected" in text or "ECONNRESET" in text:
        return f"it closes the connection. Is the port one for protocol {access.protocol}?"
    if re.search(r"timed? ?out|bootstrap", text, re.IGNORECASE):
        return f"it did not answer within {access.request_timeout:g} s."
    return f"{text}."


def _reason(error: ssl.SSLError) -> str:
    return str(error.reason or error).lower().replace("_", " ")


def _said(error: BaseException) -> str:
    """Return what a broker wrote, without the library's words around it."""
    text = str(error.args[0]) if error.args else type(error).__name__
    return text.splitlines()[0].rpartition("Error: ")[2].rstrip(".")
