"""Tokens: how often they are asked for, from whom, and what is said when there is none."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaAdminClient
from msgspec.structs import replace

from daemon.broker.access import Oauth
from daemon.broker.client import arguments
from daemon.broker.oauth import Endpoint, provider
from daemon.core.errors import BrokerError
from tests.brokers.secured import unsigned

if TYPE_CHECKING:
    from tests.daemon.broker.conftest import Secured

SECRET = "s3cr3t/&"


class Issuer(HTTPServer):
    """A token endpoint; what it answers can be changed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str]] = []
        self.status = 200
        self.answer: object = {"access_token": "first", "expires_in": 100}
        self.headers: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}/token"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        issuer = self.server
        assert isinstance(issuer, Issuer)
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        issuer.asked.append((self.headers["Authorization"], form))
        body = issuer.answer if isinstance(issuer.answer, bytes) else json.dumps(issuer.answer).encode()
        self.send_response(issuer.status)
        for name, value in issuer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        pass


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """Give a token endpoint."""
    server = Issuer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def oauth(issuer: Issuer, tmp_path: Path) -> Oauth:
    """Give what is configured for the endpoint."""
    path = tmp_path / "client-secret"
    path.write_text(f"{SECRET}\n", encoding="utf-8")
    return Oauth(url=issuer.url, client_id="re:warm", secret_file=path, scope="kafka read")


def endpoint(oauth: Oauth, now: list[float]) -> Endpoint:
    """Return the endpoint by a clock that the test moves."""
    assert oauth.secret_file is not None
    return Endpoint(oauth, oauth.secret_file, 5.0, lambda: now[0])


def test_it_asks_with_client_credentials(issuer: Issuer, oauth: Oauth) -> None:
    """RFC 6749, 4.4: id and secret as basic authentication, each percent-encoded, and the scope in the form."""
    assert provider(oauth, 5.0).token() == "first"
    assert issuer.asked == [
        ("Basic cmUlM0F3YXJtOnMzY3IzdCUyRiUyNg==", "grant_type=client_credentials&scope=kafka+read")
    ]


def test_a_token_serves_until_shortly_before_its_end(issuer: Issuer, oauth: Oauth) -> None:
    """With 100 s to live it is used for 80; then the endpoint is asked again."""
    now = [0.0]
    tokens = endpoint(oauth, now)
    assert tokens.token() == "first"
    issuer.answer = {"access_token": "second"}
    now[0] = 79.9
    assert tokens.token() == "first"
    now[0] = 80.1
    assert tokens.token() == "second"
    assert len(issuer.asked) == 2


def test_a_refused_token_is_asked_for_anew_but_not_at_once(issuer: Issuer, oauth: Oauth) -> None:
    """A broker that refuses every token does not make us storm the endpoint."""
    now = [0.0]
    tokens = endpoint(oauth, now)
    tokens.token()
    tokens.forget()
    tokens.token()
    assert len(issuer.asked) == 1
    now[0] = 10.1
    tokens.forget()
    tokens.token()
    assert len(issuer.asked) == 2


def test_clients_of_one_cluster_share_a_token(issuer: Issuer, oauth: Oauth) -> None:
    """The endpoint is not asked once for each client."""
    assert provider(oauth, 5.0).token() == provider(oauth, 5.0).token()
    assert len(issuer.asked) == 1


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (
            401,
            {"error": "invalid_client", "error_description": SECRET},
            r"answered 401 \(invalid_client\)\. Are client_id",
        ),
        (500, b"s3cr3t/&", r"answered 500\."),
        (200, b"<html>", "is no token"),
        (200, {"token": "x"}, "is no token"),
        (200, {"access_token": "a\nb"}, "is no bearer token"),
        (200, {"access_token": "a", "expires_in": "soon"}, "is no token"),
    ],
)
def test_an_endpoint_that_gives_no_token(issuer: Issuer, oauth: Oauth, status: int, answer: object, words: str) -> None:
    """What it answered is told, but for what may repeat a secret."""
    issuer.status, issuer.answer = status, answer
    with pytest.raises(BrokerError, match=words) as caught:
        provider(oauth, 5.0).token()
    assert issuer.url in str(caught.value)
    assert SECRET not in str(caught.value)


def test_credentials_follow_no_redirect(issuer: Issuer, oauth: Oauth) -> None:
    """An endpoint that sends us elsewhere is one that gives no token."""
    issuer.status, issuer.headers = 307, {"Location": f"{issuer.url}/elsewhere"}
    with pytest.raises(BrokerError, match=r"answered 307\."):
        provider(oauth, 5.0).token()
    assert len(issuer.asked) == 1


def test_an_endpoint_that_is_not_there(oauth: Oauth) -> None:
    """Its address and the reason are told."""
    with pytest.raises(BrokerError, match=r"http://127\.0\.0\.1:1/token does not answer: .*refused"):
        provider(replace(oauth, url="http://127.0.0.1:1/token"), 5.0).token()


def test_a_token_of_an_endpoint_opens_the_broker(secured: "Secured", issuer: Issuer, oauth: Oauth) -> None:
    """The broker takes it; the endpoint's silence is told before any connection is tried."""
    access = replace(secured.bearer, oauth=oauth)
    issuer.answer = {"access_token": unsigned(life=60), "expires_in": 60}
    admin = KafkaAdminClient(**arguments(access))
    assert admin.describe_cluster()["brokers"]
    admin.close()


def test_a_token_from_a_file_opens_the_broker_and_an_old_one_does_not(secured: "Secured", tmp_path: Path) -> None:
    """The file is read at each connection; a token that has expired is named as one that was refused."""
    path = tmp_path / "token"
    access = replace(secured.bearer, oauth=Oauth(token_file=path))
    path.write_text(unsigned(life=-60), encoding="utf-8")
    with pytest.raises(BrokerError, match=f"it refused our token, which is from {path} .*expired"):
        KafkaAdminClient(**arguments(access))
    path.write_text(unsigned(life=60), encoding="utf-8")
    admin = KafkaAdminClient(**arguments(access))
    assert admin.describe_cluster()["brokers"]
    admin.close()
