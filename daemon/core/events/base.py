"""What all events share: the base class and the values that they carry."""

import hashlib
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from daemon.core.plans import DataSettings, ModelSettings

Origin = Literal["outside", "operator", "stage", "daemon"]
Domain = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Meta(max_length=4096)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Scalar = str | int | float | bool | None
Numbers = dict[str, Scalar]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all events; `kind` and `version` name the class for ever."""

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    origin: ClassVar[Origin] = "daemon"


class Artefact(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a stage left behind, by its path under the state folder."""

    name: str
    path: str
    sha256: Sha256
    bytes: Count


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """A mean loss in nats per byte with a 95 % interval over documents."""

    mean: float
    low: float
    high: float
    documents: Count
    bytes: Count


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A domain's held-out loss: the candidate's, the champion's, and candidate minus champion, paired.

    Of a domain that is old and of which more came, `old` and `new` are the difference on the documents of earlier
    arrivals and on those of this run's: what is easy in the new must not hide what was forgotten of the old.
    """

    candidate: Loss
    champion: Loss | None = None
    difference: Loss | None = None
    old: Loss | None = None
    new: Loss | None = None

    @property
    def on_old(self) -> Loss | None:
        """The difference on documents of earlier arrivals, of a domain that had some."""
        return self.difference if self.old is None and self.new is None else self.old

    @property
    def on_new(self) -> Loss | None:
        """The difference on documents of this run's arrivals, of a domain that has some."""
        return self.difference if self.old is None and self.new is None else self.new


class Carrier(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the way of an event said beside the event itself; kept with its record, read by no policy.

    `timestamp` is in milliseconds since 1970. `value` is what came, where the record's text was composed of it;
    `traceparent` as in https://www.w3.org/TR/trace-context/.
    """

    source: str = ""
    topic: str = ""
    partition: int | None = None
    offset: int | None = None
    timestamp: int | None = None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    value: bytes | None = None
    traceparent: str = ""

    @property
    def place(self) -> str:
        """Where in a topic it lay, "" where it came another way."""
        return f"{self.topic}/{self.partition}@{self.offset}" if self.topic else ""


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a partition of a topic, both by their ids: `offset` is the next to be read."""

    source: Text
    cluster: Text
    topic: Text
    topic_id: Text
    partition: Count
    offset: Count


CatchUp = Literal["skip", "last", "all"]
"""What becomes of ticks that no daemon was there for: none, the last, or all of them (the last hundred at most)."""


class ScheduleSettings(msgspec.Struct, frozen=True, kw_only=True):
    """When a policy's schedule fires: a cron expression on a zone's wall clock."""

    cron: str
    timezone: str = "UTC"
    catch_up: CatchUp = "last"

    @property
    def specification(self) -> str:
        """What a tick's id says of its schedule; another way to catch up leaves the ticks what they are."""
        text = f"{' '.join(self.cron.lower().split())} {self.timezone}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class PolicySettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A configured policy: `configuration` is its own JSON, without secrets; in `shadow` it does not act."""

    name: str
    kind: str
    version: int
    configuration: str
    schedule: ScheduleSettings | None = None
    shadow: bool = False


class PipelineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the core needs to know of a configured pipeline.

    `signals` are those that its policies look at, each with how many of its last values they need.
    """

    stages: tuple[str, ...]
    policies: tuple[PolicySettings, ...]
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    priority: int = 0
    max_domains: int = 64
    signals: dict[str, int] = {}
