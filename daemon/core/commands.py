"""Commands: the intentions to act that a decision carries. Imperative, frozen, and never carried out here."""

from datetime import datetime

import msgspec

from daemon.core.plans import NO_REMEDY, Intent, Plan, Remedy


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="command"):
    """Base of all commands."""


class StartRun(Command, frozen=True, tag="start_run"):
    """Start a run; a wish until the pipeline is idle and a slot is free."""

    intent: Intent


class ResumeRun(Command, frozen=True, tag="resume_run"):
    """Take up a held or preempted run again; a wish as well."""

    run: str
    forced: bool = False


class WithdrawWish(Command, frozen=True, tag="withdraw_wish"):
    """Take back this policy's wish to start, or the one under the key `wish`."""

    wish: str | None = None


class RunStage(Command, frozen=True, tag="run_stage"):
    """Run an attempt of a stage; with `resume`, from the last checkpoint of the attempts before."""

    run: str
    stage: str
    attempt: int
    resume: bool = False
    remedy: Remedy = NO_REMEDY


class KillStage(Command, frozen=True, tag="kill_stage"):
    """End an attempt by force: it was reported as lost. Its end is told, read and judged like any other's."""

    run: str
    stage: str
    attempt: int
    failure: str


class FixPlan(Command, frozen=True, tag="fix_plan"):
    """Replace the run's draft by the plan that its train stage follows."""

    run: str
    plan: Plan


class CancelRun(Command, frozen=True, tag="cancel_run"):
    """End the run; with `again`, its wish stands again."""

    run: str
    again: bool = False


class PreemptRun(Command, frozen=True, tag="preempt_run"):
    """Ask the run to save a checkpoint and yield its slot; with `until`, it does not go on before that."""

    run: str
    until: datetime | None = None


class PostponeRun(Command, frozen=True, tag="postpone_run"):
    """End a run that has only looked; its arrivals stay pending."""

    run: str


class FailRun(Command, frozen=True, tag="fail_run"):
    """Give the run up."""

    run: str
    failure: str


class RejectRun(Command, frozen=True, tag="reject_run"):
    """Refuse the run's candidate: its trunk is kept for inspection, never continued."""

    run: str


class HoldRun(Command, frozen=True, tag="hold_run"):
    """Keep the candidate for a person to judge; the run ends and frees its slot."""

    run: str


class RollBack(Command, frozen=True, tag="roll_back"):
    """Make the previous champion the champion again."""


AnyCommand = (
    StartRun
    | ResumeRun
    | WithdrawWish
    | RunStage
    | KillStage
    | FixPlan
    | CancelRun
    | PreemptRun
    | PostponeRun
    | FailRun
    | RejectRun
    | HoldRun
    | RollBack
)


def command_id(cause: int, pipeline: str, policy: str, ordinal: int) -> str:
    """Return a command's identity: the position of the causing record, pipeline, policy and ordinal."""
    return f"{cause}/{pipeline}/{policy}/{ordinal}"


def policy_of(command: str) -> str:
    """Return the policy that a command's identity names."""
    return command.rpartition("/")[0].rpartition("/")[2]
