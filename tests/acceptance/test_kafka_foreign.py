"""A client that is not ours causes a run: Kafka's own console producer, by the very commands that the page shows."""

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from daemon.core.events import DataArrived, RunSucceeded
from tests.bench.targets import ROOT
from tests.brokers.jars import NoBroker, jars

if TYPE_CHECKING:
    from tests.acceptance.home import Home
    from tests.brokers.broker import Broker

PAGE = (ROOT / "docs" / "how-to" / "kafka.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_console_producer_of_the_page_causes_a_run(home: "Home", broker: "Broker") -> None:
    """The page's event, sent by the page's command, starts the run that the page promises."""
    try:
        kafka = f"{jars()}/*"
    except NoBroker as error:
        pytest.skip(f"Kafka's console producer is not here: {error}")
    topic = broker.topic(partitions=3)
    home.configure(pipelines=("docs-lm",))
    settings = json.loads(home.configuration.read_text(encoding="utf-8"))
    settings["sources"].append({"kind": "kafka", "bootstrap_servers": broker.address.split(","), "topics": [topic]})
    home.configuration.write_text(json.dumps(settings), encoding="utf-8")
    home.data(name="pages.jsonl")
    home.start()
    event = next(block for block in BLOCKS if "event.json" in block)
    producer = next(block for block in BLOCKS if "ConsoleProducer" in block)
    commands = (event + producer).replace("localhost:9092", broker.address).replace("rewarm.events", topic)
    environment = {**os.environ, "KAFKA": kafka}
    subprocess.run(["bash", "-euc", commands], cwd=home.folder, env=environment, check=True, timeout=60)
    home.wait_for(RunSucceeded)
    (record,) = [record for record in home.records() if isinstance(record.event, DataArrived)]
    assert (record.source, record.id, record.pipeline) == ("/newcomer", "pages-1", "docs-lm")
    assert record.carrier is not None
    assert record.carrier.topic == topic
