"""A policy of somebody's own: `{kind: custom, class: "package.module:Class"}` and its fields."""

import importlib
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import msgspec
from msgspec.structs import replace
from pydantic import ConfigDict, Field, ValidationError, model_serializer, model_validator

from daemon.core.commands import ResumeRun, StartRun
from daemon.core.decisions import Decision
from daemon.core.events import Record, ScheduleSettings
from daemon.core.state import Pipeline
from policies.base import BasePolicy

MOST_MISTAKES = 5


class _Version:
    """The class's version: of `Custom` itself, and of what stands behind an instance of it."""

    def __get__(self, instance: "Custom | None", owner: type) -> int:
        return 1 if instance is None else instance.inner.version


class Custom(BasePolicy):
    """A subclass of `policies.base.BasePolicy` that is not of rewarm; all else that is given are its own fields.

    Whoever asks is answered by `inner`. The class is imported once in a process: its code counts as it was then.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    version: ClassVar[int] = _Version()  # type: ignore[assignment]  # a descriptor that gives one
    kind: Literal["custom"] = "custom"
    path: str = Field(alias="class", description="the policy's class: 'package.module:Class'")

    @model_validator(mode="after")
    def _made(self) -> Self:
        _ = self.inner  # what its class refuses is a mistake of the configuration
        return self

    @cached_property
    def inner(self) -> BasePolicy:
        """The policy itself; raises ValueError for a class that is not there or does not take the fields."""
        cls = found(self.path)
        own = {key: value for key, value in (self.model_extra or {}).items() if key != "kind"}
        try:
            return cls.model_validate({**own, "name": self.name or usual_name(cls), "mode": self.mode})
        except ValidationError as error:
            raise ValueError(f"class {self.path!r}: {_mistakes(cls, error)}") from error
        except Exception as error:
            raise ValueError(f"class {self.path!r} cannot be made: {type(error).__name__}: {error}") from error

    @cached_property
    def label(self) -> str:
        """The policy's name in its pipeline: that of its kind, or of its class, where it is given none."""
        return self.inner.label

    @property
    def ticks(self) -> ScheduleSettings | None:
        """When the clock shall tell it `schedule.fired`, if ever."""
        return self.inner.ticks

    @property
    def signals(self) -> Mapping[str, int]:
        """The signals that it looks at, each with how many of its last values it needs."""
        return self.inner.signals

    def decide(self, state: Pipeline, record: Record) -> Decision | None:
        """Return what follows from the fact, if anything; raises an error for an answer that cannot be kept."""
        return _kept(self.inner.decide, state, record)

    def opinion(self, state: Pipeline, record: Record) -> Decision | None:
        """Return the standing opinion with today's numbers."""
        return _kept(self.inner.opinion, state, record)

    @model_serializer
    def _whole(self) -> dict[str, Any]:
        """Return the configuration with the class's own defaults: a journal keeps what counted."""
        own = self.inner.model_dump(mode="json", by_alias=True)
        own.pop("kind", None)
        return {"kind": self.kind, "class": self.path, **own, "name": self.name, "mode": self.mode}


def found(path: str) -> type[BasePolicy]:
    """Return the class at 'package.module:Class'; raises ValueError that says what is wrong with it."""
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not all(part.isidentifier() for part in [*module_name.split("."), name]):
        raise ValueError(f"class {path!r} names no class: write 'package.module:Class'")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(
                f"class {path!r}: there is no module {error.name!r}: install it, or put it beside the configuration"
            ) from error
        raise ValueError(f"class {path!r}: importing {module_name} failed: {error}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"class {path!r}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    cls = getattr(module, name, None)
    if cls is None:
        raise ValueError(f"class {path!r}: module {module_name} has no {name}")
    if not (isinstance(cls, type) and issubclass(cls, BasePolicy)) or cls is Custom:
        raise ValueError(f"class {path!r} is no policy: derive it from policies.base.BasePolicy")
    if getattr(cls, "__abstractmethods__", None):
        raise ValueError(f"class {path!r} has no method {min(cls.__abstractmethods__)!r}")
    return cls


def usual_name(cls: type[BasePolicy]) -> str:
    """Return what a policy of the class is called where nobody names it: its kind, or the class in small letters."""
    kind = cls.model_fields.get("kind")
    if kind is not None and isinstance(kind.default, str) and kind.default:
        return kind.default
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower().lstrip("_")


def _kept(method: Callable[[Pipeline, Record], object], state: Pipeline, record: Record) -> Decision | None:
    """Return an answer as the journal keeps it: what nobody has checked must not stop the loop, or wake it for ever."""
    try:
        answer = method(state, record)
    except SystemExit as error:
        raise ValueError(f"it would end the process (SystemExit: {error})") from error
    if answer is None:
        return None
    if not isinstance(answer, Decision):
        raise TypeError(f"it answered {type(answer).__name__}, and neither a Decision nor None")
    try:
        decision = msgspec.json.decode(msgspec.json.encode(answer), type=Decision)
        wakes = {key: at for key, at in decision.wakes.items() if at > record.recorded_at}
    except Exception as error:
        raise ValueError(f"its decision cannot be kept: {error}") from error
    if len(decision.commands) > 1 and any(isinstance(each, StartRun | ResumeRun) for each in decision.commands):
        raise ValueError("a decision that starts a run carries no other command")
    return decision if len(wakes) == len(decision.wakes) else replace(decision, wakes=wakes)


def _mistakes(cls: type[BasePolicy], error: ValidationError) -> str:
    told = []
    for problem in error.errors()[:MOST_MISTAKES]:
        where = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            known = ", ".join(sorted({field.alias or key for key, field in cls.model_fields.items()} - {"kind"}))
            message = f"is no field of it; its fields: {known}"
        elif problem["type"] != "missing" and where:
            message = f"{message} (it is {problem['input']!r})"
        told.append(f"{where}: {message}" if where else message)
    return "; ".join(told)
