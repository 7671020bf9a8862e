"""What `/openapi.json` promises, tried on the application behind a real socket; the tool knows nothing else of it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import positive_data_acceptance
from schemathesis.core.result import Ok
from schemathesis.schemas import BaseSchema

from daemon.core.events import EVENTS
from daemon.door import OUTSIDE_KINDS
from daemon.schema import event_type
from daemon.sources.http.openapi import document
from ops.server import serve
from tests.daemon.sources.http.site import BATCH, Site, event

OPERATIONS = [
    ("/events", "POST"),
    ("/state", "GET"),
    ("/runs", "GET"),
    ("/runs/{run}", "GET"),
    ("/openapi.json", "GET"),
    ("/livez", "GET"),
    ("/readyz", "GET"),
    ("/metrics", "GET"),
]


SAYING = {"/events", "/runs", "/livez", "/readyz"}
"""Where a query or a body can be said wrongly."""
EXAMPLES = {"/events": 30, "/runs": 15}


class Served(NamedTuple):
    """A site, and what it says of itself."""

    site: Site
    schema: BaseSchema
    session: requests.Session


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve a site at a free port."""
    site = Site(tmp_path_factory.mktemp("site")).start()
    handle = serve(site.application, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{handle.port}"
    described = requests.get(f"{url}/openapi.json", timeout=10).json()
    # A batch of too many takes seconds to make up; that bound has a test of its own.
    del described["paths"]["/events"]["post"]["requestBody"]["content"][BATCH["content-type"]]["schema"]["maxItems"]
    schema = schemathesis.openapi.from_dict(described)
    schema.config.update(base_url=url)
    schema.config.checks.negative_data_rejection.expected_statuses += ["207"]  # a batch may have good ones too
    with requests.Session() as session:
        yield Served(site, schema, session)
    handle.stop()
    site.stop()


TRIALS = [
    pytest.param(path, method, mode, id=f"{method} {path} {mode.value}")
    for path, method in OPERATIONS
    for mode in GenerationMode
    if mode is not GenerationMode.NEGATIVE or path in SAYING
]


@pytest.mark.parametrize(("path", "method", "mode"), TRIALS)
def test_every_operation_keeps_its_promise(served: Served, path: str, method: str, mode: GenerationMode) -> None:
    """Statuses, headers and bodies are those that the document names, and never 500, whatever is sent."""
    operation = served.schema[path][method]

    @settings(max_examples=EXAMPLES.get(path, 10), suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def keeps(case: "Case[Any]") -> None:
        # What fits the document may still name a file that is not there.
        case.call_and_validate(session=served.session, excluded_checks=[positive_data_acceptance])

    keeps()


def test_nothing_is_half_recorded(served: Served) -> None:
    """After all of that each record is an outside event or a dead letter, and the journal goes on."""
    served.site.post(event("last"))
    kinds = {record.event.kind for record in served.site.records()}
    assert kinds <= {*OUTSIDE_KINDS, "input.rejected"}
    assert "input.rejected" in kinds
    assert served.site.records()[-1].id == "last"


def test_the_document_names_what_there_is(site: Site) -> None:
    """Every route with its methods, every kind of event that may be sent, and the configured pipelines."""
    document = site.client.get("/openapi.json").json()
    assert document["info"] == {"title": "rewarm", "version": "1.2.3", "description": "It keeps models fresh."}
    routes = {(r.path, m.lower()) for r in site.application.routes for m in r.methods if m != "HEAD"}  # type: ignore[attr-defined]
    assert {(path, method) for path, each in document["paths"].items() for method in each} == routes
    schemas = document["components"]["schemas"]
    assert set(schemas["Event"]["discriminator"]["mapping"]) == {event_type(kind) for kind in OUTSIDE_KINDS}
    assert {EVENTS[kind].__name__ for kind in OUTSIDE_KINDS} <= set(schemas)
    assert schemas["DataArrivedEvent"]["properties"]["subject"]["enum"] == ["one"]


def test_a_document_without_pipelines_is_one_too() -> None:
    """Before anything is configured any subject would do."""
    schema = schemathesis.openapi.from_dict(document("", []))
    paths = {each.ok().path for each in schema.get_all_operations() if isinstance(each, Ok)}
    assert paths == {path for path, _ in OPERATIONS}
