"""What is installed, shipped and run in a container is what the repository says."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGES = ("daemon", "policies", "stages", "kernels", "ops")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("linux", "darwin")


def other_owners(distributions: Iterable[metadata.Distribution], names: Iterable[str]) -> dict[str, set[str]]:
    """Return, for each top-level name that anyone but rewarm has installed, who that is."""
    owners: dict[str, set[str]] = {}
    for distribution in distributions:
        tops = {file.parts[0].removesuffix(".py") for file in distribution.files or ()}
        for name in tops.intersection(names) if distribution.name != "rewarm" else ():
            owners.setdefault(name, set()).add(distribution.name)
    return owners


def locked() -> Iterator[Requirement]:
    """Yield the lock's entries: a name, one version, perhaps a marker."""
    for line in LOCK.splitlines():
        if line and line[0] not in " #":
            yield Requirement(line.removesuffix("\\").strip())


def wanted() -> list[Requirement]:
    """Return what pyproject.toml asks for, with every extra; `dev` names the others by the project's own name."""
    lists: list[list[str]] = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    found = [Requirement(dependency) for dependencies in lists for dependency in dependencies]
    return [requirement for requirement in found if requirement.name != PROJECT["name"]]


def dockerfile() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions: the keyword and what follows, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(keyword, rest.strip()) for keyword, _, rest in (line.partition(" ") for line in joined.splitlines())]


def told(keyword: str) -> list[str]:
    """Return the arguments of every instruction of one kind in the Dockerfile's last stage."""
    instructions = dockerfile()
    last = max(index for index, (word, _) in enumerate(instructions) if word == "FROM")
    return [rest for word, rest in instructions[last:] if word == keyword]


def machine(python: str, platform: str) -> dict[str, str]:
    """Return the values that markers are judged by on a 64-bit machine."""
    return {
        **{key: str(value) for key, value in default_environment().items()},
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": platform,
        "platform_system": platform.title(),
        "platform_machine": "x86_64" if platform == "linux" else "arm64",
    }


def applies(marker: Marker | None, environment: dict[str, str] | None = None) -> bool:
    """Tell whether a requirement counts on a machine, by default on this one."""
    return marker is None or marker.evaluate(environment)


def test_our_names_are_ours_alone() -> None:
    """No other installed distribution owns a top-level name of ours, and each is imported from here."""
    assert other_owners(metadata.distributions(), PACKAGES) == {}

    for name in PACKAGES:
        spec = find_spec(name)

        assert spec is not None
        assert spec.origin == str(ROOT / name / "__init__.py")


def test_a_rival_for_a_name_is_found(tmp_path: Path) -> None:
    """A distribution that brings a package called `daemon`, as python-daemon does, is named."""
    info = tmp_path / "python_daemon-3.1.0.dist-info"
    info.mkdir()
    (tmp_path / "daemon").mkdir()
    (tmp_path / "daemon" / "__init__.py").touch()  # some readers list only files that are there
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: python-daemon\nVersion: 3.1.0\n")
    (info / "RECORD").write_text("daemon/__init__.py,,\npython_daemon-3.1.0.dist-info/METADATA,,\n")

    found = other_owners(metadata.distributions(path=[str(tmp_path)]), PACKAGES)

    assert found == {"daemon": {"python-daemon"}}


def test_the_lock_holds_versions_and_hashes_only() -> None:
    """No line of the lock names an index, a link or a path; every entry has its hashes."""
    entry = re.compile(r"[a-z0-9][a-z0-9-]*==[A-Za-z0-9.+!]+( ; [^\\/]+)? \\")
    other = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?|    #( via)?( +[a-z0-9-]+( \(pyproject\.toml\))?)?")
    strange = [line for line in LOCK.splitlines() if not entry.fullmatch(line) and not other.fullmatch(line)]

    assert strange == []


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_satisfies_pyproject(python: str, platform: str) -> None:
    """On every supported machine each requirement has exactly one locked version, and it fits."""
    environment = machine(python, platform)
    versions: dict[str, list[str]] = {}
    for pin in locked():
        if applies(pin.marker, environment):
            (specifier,) = pin.specifier
            versions.setdefault(canonicalize_name(pin.name), []).append(specifier.version)

    for requirement in wanted():
        if applies(requirement.marker, environment):
            (version,) = versions[canonicalize_name(requirement.name)]

            assert requirement.specifier.contains(version), f"{requirement} is locked at {version}: make lock"


def test_the_lock_is_what_is_installed() -> None:
    """The tests run with the locked versions; torch for the CPU differs in its local part alone."""
    for pin in locked():
        if applies(pin.marker) and not pin.name.startswith(("cuda-", "nvidia-")):
            assert pin.specifier.contains(metadata.version(pin.name)), f"{pin.name}: make setup"


def test_a_wheel_holds_the_packages_and_the_example(tmp_path: Path) -> None:
    """A wheel brings the five packages and the default configuration, and no test."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = tmp_path.glob("*.whl")

    with zipfile.ZipFile(built) as wheel:
        names = set(wheel.namelist())
        example = wheel.read("daemon/rewarm.yaml")

    assert {f"{package}/__init__.py" for package in PACKAGES} <= names
    assert {name.split("/")[0] for name in names} == {*PACKAGES, f"rewarm-{PROJECT['version']}.dist-info"}
    assert example == (ROOT / "rewarm.yaml").read_bytes()


def test_make_help_names_every_target() -> None:
    """`make help` explains each target that a person may type."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    said = subprocess.run(
        ["make", "help"], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout

    for target in (
        "help",
        "run",
        "demo-kafka",
        "serve",
        "ui",
        "test",
        "check",
        "fmt",
        "bench-NAME",
        "kafka",
        "setup",
        "lock",
        "clean",
    ):
        assert re.search(rf"^  make {target} +\w", said, re.MULTILINE), target


def test_what_ci_runs_stops_at_the_first_failure() -> None:
    """`.ci/run` is an executable bash script that does not run on after an error."""
    script = ROOT / ".ci" / "run"

    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text(encoding="utf-8").splitlines()
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_image_is_built_in_stages_from_a_pinned_python() -> None:
    """The image has a build stage and a final one, each from one patch release of slim Python."""
    bases = [rest.split() for keyword, rest in dockerfile() if keyword == "FROM"]

    assert len(bases) >= 2
    for base in bases:
        assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base[0])


def test_the_container_is_not_root_and_has_one_volume() -> None:
    """The process runs as 10001:10001, and all it may write lies in the one volume that it owns."""
    assert told("USER") == ["10001:10001"]
    assert [json.loads(volume) for volume in told("VOLUME")] == [["/var/lib/rewarm"]]
    assert told("WORKDIR") == ["/var/lib/rewarm"]
    assert any("--owner=10001 --group=10001" in line and line.endswith("/var/lib/rewarm") for line in told("RUN"))


def test_the_container_stops_cleanly_and_answers_for_its_health() -> None:
    """SIGTERM reaches rewarm itself, and rewarm itself says whether it is well: no shell, no curl."""
    (health,) = told("HEALTHCHECK")

    assert told("STOPSIGNAL") == ["SIGTERM"]
    assert [json.loads(line) for line in told("ENTRYPOINT")] == [["rewarm"]]
    assert [json.loads(line) for line in told("CMD")] == [["serve"]]
    assert json.loads(health.partition("CMD ")[2]) == ["rewarm", "healthcheck"]
    assert not re.search(r"\b(curl|wget)\b", (ROOT / "Dockerfile").read_text(encoding="utf-8"))


def test_the_health_check_of_the_container_exists() -> None:
    """The command line knows the command that the image asks for its health."""
    command = [sys.executable, "-m", "daemon", "healthcheck", "--help"]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert asked.returncode == 0, asked.stderr


def test_the_image_says_what_it_is() -> None:
    """The OCI labels give title, description, revision, base and the project's own version."""
    labels = dict(re.findall(r'org\.opencontainers\.image\.([a-z.]+)="([^"]*)"', " ".join(told("LABEL"))))
    (base,) = told("FROM")

    assert {"title", "description", "version", "revision", "base.name"} <= labels.keys()
    assert labels["version"] == PROJECT["version"]
    assert labels["base.name"] == f"docker.io/library/{base}"


def test_the_image_holds_code_and_no_model() -> None:
    """What is copied in is code, configuration and the lock; the build sees nothing else of the folder."""
    copied = {
        name.rstrip("/")
        for keyword, rest in dockerfile()
        if keyword == "COPY" and not rest.startswith("--from=")
        for name in rest.split()[:-1]
    }
    seen = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line.removeprefix("!").rstrip("/") for line in seen if line.startswith("!")}

    assert "*" in seen
    assert copied == allowed == {*PACKAGES, "README.md", "pyproject.toml", "requirements.lock", "rewarm.yaml"}
    assert not any(keyword == "ADD" for keyword, _ in dockerfile())
