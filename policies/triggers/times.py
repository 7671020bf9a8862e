"""Enough time: since data began to wait, since a model was promoted, since anything arrived."""

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import Field

from daemon.core.decisions import rounded
from policies.periods import Period, told
from policies.triggers.base import Moment, Told, Trigger


class Age(Trigger):
    """Data has waited so long, or the champion is so old, or the last full training behind it (`base`)."""

    key: ClassVar[str] = "age"
    age: Period = Field(description="from this age on")
    of: Literal["data", "champion", "base"] = Field(default="data", description="whose age")

    def since(self, moment: Moment) -> datetime | None:
        """Return from when the age counts; None: there is nothing that ages."""
        if self.of == "data":
            return moment.since
        champion = moment.state.champion
        if champion is None:
            return None
        return champion.promoted_at if self.of == "champion" else champion.fully_trained_at

    def speaks(self, moment: Moment) -> bool:
        """Return whether there is a model whose age counts."""
        return self.of == "data" or self.since(moment) is not None

    def holds(self, moment: Moment) -> bool:
        """Return whether it is that old."""
        since = moment.since if self.of == "data" else self.since(moment)
        return since is not None and moment.now >= since + self.age

    def wakes(self, moment: Moment) -> datetime | None:
        """Return when it will be that old."""
        since = moment.since if self.of == "data" else self.since(moment)
        if since is None:
            return None
        at = since + self.age
        return at if moment.now < at else None

    def tell(self, moment: Moment) -> Told:
        """Return the age, and the one that is asked for."""
        since, name = self.since(moment), "age_seconds" if self.of == "data" else f"{self.of}_age_seconds"
        age = moment.now - since if since is not None else None
        what = {"data": "data waited", "champion": "the champion is as old as"}.get(
            self.of, "the last full training is as old as"
        )
        if age is None:
            why = "no data waits" if self.of == "data" else "there is no champion"
        elif age >= self.age:
            why = f"{what} {told(self.age)}"
        else:
            why = f"{what} {told(age)} of {told(self.age)}"
        seconds = rounded(age.total_seconds()) if age is not None else None
        return Told(why=why, inputs={name: seconds}, thresholds={name: self.age.total_seconds()})


class Silence(Trigger):
    """Nothing has arrived for so long: what came in a burst is taken together."""

    key: ClassVar[str] = "silence"
    silence: Period = Field(description="from so long on")

    def holds(self, moment: Moment) -> bool:
        """Return whether it has been silent so long."""
        last = moment.state.last_arrival_at
        return last is not None and moment.now >= last + self.silence

    def wakes(self, moment: Moment) -> datetime | None:
        """Return when it will have been, if nothing arrives."""
        last = moment.state.last_arrival_at
        return last + self.silence if last is not None and moment.now < last + self.silence else None

    def tell(self, moment: Moment) -> Told:
        """Return how long it has been silent."""
        last, name = moment.state.last_arrival_at, "silence_seconds"
        quiet = moment.now - last if last is not None else None
        why = f"nothing arrived for {told(quiet)}" if quiet is not None else "nothing has ever arrived"
        if quiet is not None and quiet < self.silence:
            why += f" of {told(self.silence)}"
        seconds = rounded(quiet.total_seconds()) if quiet is not None else None
        return Told(why=why, inputs={name: seconds}, thresholds={name: self.silence.total_seconds()})
