"""Exit codes and the one clear line that a mistake becomes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.cli import COMMANDS, build, main
from daemon.cli import status as status_command
from daemon.core.errors import JournalBusy

if TYPE_CHECKING:
    from daemon.config import Configuration
    from tests.daemon.cli.conftest import Chronicle, Command

ROOT = Path(__file__).parents[3]


def started(*arguments: str, cwd: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, as the command line would be."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_help_names_every_command() -> None:
    """`rewarm --help` lists all commands."""
    told = build().format_help()

    assert all(name in told for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_json_and_config_behind_its_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` and `--config` are understood after the command as well as before it."""
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])

    told = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "--json" in told
    assert "--config" in told


def test_nothing_to_do_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the help is shown, and the exit code is that of a mistake."""
    assert main([]) == 2
    assert "status" in capsys.readouterr().out


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that does not exist brings the known ones."""
    with pytest.raises(SystemExit) as stopped:
        main(["statsu"])

    assert stopped.value.code == 2
    assert "status" in capsys.readouterr().err


def test_a_mistake_is_one_line(rewarm: "Command") -> None:
    """A user's mistake is one line on standard error and exit code 2, without a traceback."""
    code, out, err = rewarm("--config", "missing.yaml", "status")

    assert (code, out) == (2, "")
    assert err.splitlines() == ["rewarm: There is no configuration file missing.yaml: check --config or REWARM_CONFIG."]


def test_a_mistake_is_json_where_json_was_asked_for(rewarm: "Command") -> None:
    """With --json a mistake is a JSON object with its class and message."""
    code, _, err = rewarm("status", "--json", "--config", "missing.yaml")

    assert code == 2
    assert json.loads(err)["error"] == "ConfigurationError"


def test_every_mistake_in_the_configuration_is_told(rewarm: "Command", configuration: "Configuration") -> None:
    """check-config names every wrong key, and the known ones."""
    Path("rewarm.yaml").write_text("http: {port: many}\npipelines: {a: {polcies: []}}\n", encoding="utf-8")

    code, _, err = rewarm("check-config")

    assert code == 2
    assert "rewarm: rewarm.yaml: pipelines.a.polcies: is no known key. Did you mean 'policies'?" in err
    assert "rewarm: rewarm.yaml: http.port" in err


def test_the_configuration_is_shown_without_pythons_brackets(rewarm: "Command", configuration: "Configuration") -> None:
    """Lists and nested settings are told in words."""
    Path("rewarm.yaml").write_text("pipelines: {a: {policies: [{kind: rewarm_replay}]}}\n", encoding="utf-8")

    code, out, _ = rewarm("check-config")

    words = " ".join(out.split())
    assert code == 0
    assert "replay_schedule none" in words
    assert "planner (weights (old 1.0, new 1.0), price 0.01, least_runs 3" in words
    assert not set("[]{}'") & set(words)


def test_a_busy_journal_has_its_own_exit_code(rewarm: "Command", monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3 says that another daemon holds the journal."""

    def busy(*_: object) -> None:
        raise JournalBusy("The journal is written by process 7 on host x.")

    monkeypatch.setattr(status_command, "collect", busy)

    assert rewarm("status")[::2] == (3, "rewarm: The journal is written by process 7 on host x.\n")


def test_ctrl_c_is_quiet(rewarm: "Command", monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends a command with exit code 130 and not a word."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status_command, "collect", interrupted)

    assert rewarm("status") == (130, "", "")


def test_a_reader_that_goes_away_is_no_error(trained: "Chronicle", tmp_path: Path) -> None:
    """`rewarm events | head` ends without a traceback."""
    code = "import sys; from daemon.cli import main; sys.exit(main())"
    command = f'"{sys.executable}" -c "{code}" events --after 0 --json | head -n 1'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("command", ["status", "check-config"])
def test_quick_commands_load_nothing_heavy(trained: "Chronicle", tmp_path: Path, command: str) -> None:
    """Status and check-config load neither torch nor MLflow nor NumPy, and take less than a second of a core."""
    code = """
import resource, sys
from daemon.cli import main
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = {"torch", "mlflow", "numpy", "scipy", "pandas"} & set(sys.modules)
print(sorted(heavy), used.ru_utime + used.ru_stime, file=sys.stderr)
sys.exit(code)
"""
    done = started(command, "--json", cwd=tmp_path, code=code)

    assert done.returncode == 0, done.stderr
    heavy, _, used = done.stderr.strip().rpartition(" ")
    assert heavy == "[]"
    assert float(used) < 1.0
    assert json.loads(done.stdout)


def test_the_module_is_the_command(tmp_path: Path) -> None:
    """`python -m daemon` is the same as `rewarm`."""
    code = "import runpy, sys; sys.argv = ['rewarm', 'check-config']; runpy.run_module('daemon', run_name='__main__')"
    done = started(cwd=tmp_path, code=code)

    assert done.returncode == 0, done.stderr
    assert re.search(r"journal +\S+journal\.db|journal +var/journal\.db", done.stdout)
