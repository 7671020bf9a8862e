"""Secrets: they lie in files, are read when they are needed, and are never shown."""

from pathlib import Path

from daemon.core.errors import BrokerError


def secret(path: Path) -> str:
    """Return what a file says, without blanks and line ends around it; raises BrokerError, which names the file."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BrokerError(f"{path}, where a secret for Kafka should be, cannot be read: {reason}.") from error
    if not text:
        raise BrokerError(f"{path}, where a secret for Kafka should be, is empty.")
    return text
