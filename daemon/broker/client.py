"""What a Kafka client is made of: the keyword arguments that consumers, producers and admin clients share.

A client that is made with them connects as daemon.broker.connections says: its constructor raises BrokerError with
the cause, within the request time-out, at once where another attempt is of no use, and nothing of it is left.
Resolving a name blocks all of a client for as long as the system's resolver takes: kafka-python has no bound for it.
"""

import logging
from functools import partial

from daemon.broker.access import Access
from daemon.broker.security import security

BACKOFF_MS = 100
BACKOFF_MOST_MS = 2_000


def arguments(access: Access) -> dict[str, object]:
    """Return keyword arguments for KafkaConsumer, KafkaProducer and KafkaAdminClient; secrets are read now.

    Raises BrokerError where a secret, a certificate or a token endpoint cannot be used.
    """
    from daemon.broker.causes import explain
    from daemon.broker.connections import Client, Direct

    # kafka-python logs every attempt, some with a traceback; whoever uses it says what it means, once.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    timeout = int(access.request_timeout * 1000)
    return {
        "bootstrap_servers": list(access.bootstrap_servers),
        "client_id": access.client_id,
        "request_timeout_ms": timeout,
        "bootstrap_timeout_ms": timeout,
        "reconnect_backoff_ms": BACKOFF_MS,
        "reconnect_backoff_max_ms": BACKOFF_MOST_MS,
        "proxy_url": f"{Direct.SCHEMES[0]}:",
        "kafka_client": partial(Client, partial(explain, access)),
        **security(access),
    }
