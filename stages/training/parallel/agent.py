"""The process that starts the ranks: torchrun's own launcher, with nothing that listens beyond this machine.

`python -m torch.distributed.run` would do as well, but for three things that were looked at in torch 2.15: it puts
every rank into a session of its own, where whoever ends an attempt would not find it; its store listens on every
interface; and each rank imports everything anew. Given a function, the same launcher keeps the session and forks, and
given a file to meet at it opens no store.
"""

import logging
import os
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from stages.run_folder import read_specification
from stages.training.parallel.mortal import die_with
from stages.training.parallel.rank import STORE, rank_main

POLL_SECONDS = 0.1
PATIENCE_SECONDS = 5
MEETING = "ranks.meeting"
ENVIRONMENT = {
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # else a store that listens on every interface
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # else to ask for devices is to use one, after which none may fork
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
logger = logging.getLogger("rewarm.stage")


def run_agent(folder: Path, descriptor: int, parent: int) -> int:
    """Start the ranks of an attempt and wait for them; returns the exit status. Dies with `parent`."""
    die_with(parent)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    processes = read_specification(folder).plan.training.engine.processes
    for name in (MEETING, STORE):
        (folder / name).unlink(missing_ok=True)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"{folder.parent.name}-{folder.name}",
        rdzv_backend="c10d",
        rdzv_endpoint=str(folder / MEETING),
        rdzv_configs={"store_type": "file"},
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=POLL_SECONDS,
        shutdown_timeout=PATIENCE_SECONDS,
        start_method="fork",
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
    )
    try:
        elastic_launch(config, rank_main)(str(folder), descriptor, os.getpid())
    except ChildFailedError as error:
        ends = {rank: failure.exitcode for rank, failure in error.failures.items()}
        logger.error("A rank failed, so all were ended.", extra={"exit_codes": ends})  # noqa: TRY400 - it told why
        return 1
    finally:
        for name in (MEETING, STORE):
            (folder / name).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    from daemon import logs

    logs.configure(sys.stderr)
    sys.exit(run_agent(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
