"""Where the jars are looked for, and what is said when something is missing."""

from pathlib import Path

import pytest

from tests.brokers.jars import NoBroker, cache, fetch, jars, main


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder where programs are found, in which there is none, and a cache that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, script: str) -> None:
    """Put a program into a folder."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def java(folder: Path, version: str) -> None:
    """Put a Java there that says which one it is."""
    program(folder, "java", f"echo 'openjdk version \"{version}\"' >&2")


def test_the_cache_is_where_caches_are(path: Path, tmp_path: Path) -> None:
    """It is named after the version, outside the checkout, and below XDG_CACHE_HOME."""
    assert cache().parent == tmp_path / "cache" / "rewarm"
    assert cache().name.startswith("kafka-4.")


def test_without_jars_the_command_is_named(path: Path) -> None:
    """Whoever skips tests reads how to have them."""
    with pytest.raises(NoBroker, match="`make kafka` fetches them"):
        jars()


def test_java_is_missing(path: Path) -> None:
    """It is said which one is needed and how to get it."""
    with pytest.raises(NoBroker, match=r"Java 17 or newer is missing.*apt-get install"):
        fetch()


def test_java_is_old(path: Path) -> None:
    """It is said which one was found."""
    java(path, "11.0.2")
    with pytest.raises(NoBroker, match=r"needs Java 17 or newer, and .*bin/java is 11"):
        fetch()


def test_maven_is_missing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said in one line, and the command fails."""
    java(path, "21.0.1")
    assert main() == 1
    assert capsys.readouterr().err == ("Maven is missing, which fetches Kafka's jars: apt-get install --yes maven.\n")


def test_a_failed_fetch_leaves_no_cache(path: Path) -> None:
    """What Maven said is passed on; half a cache is not taken for a whole one."""
    java(path, "17.0.1")
    program(path, "mvn", "echo '[ERROR] no network'; exit 1")
    with pytest.raises(NoBroker, match=r"could not fetch Kafka's jars:\n\[ERROR\] no network"):
        fetch()
    assert list(cache().parent.iterdir()) == []


def test_what_is_there_is_not_fetched_again(path: Path) -> None:
    """The second time nobody is asked."""
    java(path, "17.0.1")
    program(path, "mvn", 'for word; do case $word in -DoutputDirectory=*) /bin/mkdir -p "${word#*=}";; esac; done')
    folder = fetch()
    program(path, "mvn", "exit 1")
    assert fetch() == jars() == folder == cache()
