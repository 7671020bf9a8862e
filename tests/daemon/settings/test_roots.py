"""Roots elsewhere and their credentials: what is taken, what is refused, and by which words."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.config import Configuration, load
from daemon.core.errors import ConfigurationError
from daemon.settings.roots import check_credentials
from stages.roots import PROTOCOLS, Protocol, Remote

Write = Callable[[str], Configuration]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Load a configuration of this text."""

    def load_text(text: str) -> Configuration:
        file = tmp_path / "rewarm.yaml"
        file.write_text(text, encoding="utf-8")
        return load(file)

    return load_text


def test_folders_and_roots_elsewhere_are_told_apart(write: Write, tmp_path: Path) -> None:
    """A url alone needs no credentials; a slash at its end says nothing; files of credentials count from the file."""
    configuration = write(
        'roots: [in, "https://data.example.org/corpora/", {url: "s3://bucket/in", credentials: ours}]\n'
        "credentials: [{name: ours, file: secrets/s3.json}]"
    )
    assert configuration.roots == (tmp_path / "in",)
    assert configuration.remotes == (
        Remote(url="https://data.example.org/corpora"),
        Remote(url="s3://bucket/in", credentials=str(tmp_path / "secrets" / "s3.json")),
    )
    assert configuration.all_roots == (*configuration.roots, *configuration.remotes)


REFUSED = {
    "ftp://host/a": "must begin with one of s3://",
    "file:///data": "without a scheme",
    "s3://": "plain path",
    "s3://bucket/../a": "plain path",
    "s3://bucket//a": "plain path",
    "s3://bucket/a?b": "plain path",
    "s3://bucket/%2e%2e": "plain path",
    "https://host:0/a": "plain path",
    "https://host:port/a": "plain path",
    "https://me:hunter2@host/a": "no name or password",
    "https://[host/a": "plain path",
}


@pytest.mark.parametrize("url", REFUSED)
def test_a_root_that_is_none_is_refused(write: Write, url: str) -> None:
    """The message says what is wrong, and shows no url: a password may be in it."""
    for text in (f'roots: ["{url}"]', f'roots: [in, {{url: "{url}"}}]'):
        with pytest.raises(ConfigurationError) as caught:
            write(text)
        assert REFUSED[url] in str(caught.value)
        assert "url: must" in str(caught.value) or "url: is" in str(caught.value)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('roots: [{url: "s3://b", credentials: x}]', "no credentials are called 'x'; known: none"),
        ('roots: ["s3://b/a", "s3://b/a/"]', "root s3://b/a is there twice"),
        ("credentials: [{name: x, file: a}, {name: x, file: b}]", "two credentials are called 'x'"),
        ('roots: [{url: "s3://b", credental: x}]', "roots.0.elsewhere.credental: is no known key. Did you mean"),
        ("roots: [{credentials: x}]", "roots.0.elsewhere.url: Field required"),
        ("credentials: [{name: x}]", "credentials.0.file: Field required"),
    ],
)
def test_mistakes_are_explained(write: Write, text: str, words: str) -> None:
    """Key, what is wrong, and what is known."""
    with pytest.raises(ConfigurationError) as caught:
        write(text)
    assert words in str(caught.value)


def test_a_protocol_without_its_library_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line that installs it."""
    monkeypatch.setitem(PROTOCOLS, "s3", Protocol("no_such_library", "pip install 'rewarm[s3]'"))
    with pytest.raises(ConfigurationError) as caught:
        write('roots: ["s3://bucket/in"]')
    assert "needs no_such_library, which is not installed: pip install 'rewarm[s3]'." in str(caught.value)


def test_the_daemon_loads_no_library_of_data(tmp_path: Path) -> None:
    """With a root elsewhere configured, neither the daemon nor its configuration loads what stages read with."""
    (tmp_path / "rewarm.yaml").write_text('roots: ["s3://bucket/in", "https://host/a"]', encoding="utf-8")
    code = """
import sys
from pathlib import Path
import daemon.app
from daemon.config import load
load(Path(sys.argv[1]))
heavy = {"fsspec", "s3fs", "botocore", "aiohttp", "pyarrow", "zstandard", "numpy", "torch"} & set(sys.modules)
sys.exit(f"loaded: {sorted(heavy)}" if heavy else 0)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "rewarm.yaml")]
    started = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert started.returncode == 0, started.stderr


def test_files_of_credentials_are_tried(tmp_path: Path) -> None:
    """Missing, readable by everybody or no JSON object: refused, and nothing of it is shown."""
    file = tmp_path / "s3.json"
    remote = Remote(url="s3://bucket/in", credentials=str(file))
    check_credentials([Remote(url="s3://bucket/in")])
    with pytest.raises(ConfigurationError, match="cannot be read"):
        check_credentials([remote])
    for content, mode, words in (
        ('{"key": "hunter2"}', 0o644, "chmod o="),
        ('["hunter2"]', 0o600, "JSON object"),
        ("hunter2", 0o600, "JSON object"),
    ):
        file.write_text(content)
        file.chmod(mode)
        with pytest.raises(ConfigurationError) as caught:
            check_credentials([remote])
        assert words in str(caught.value)
        assert "hunter2" not in str(caught.value)
    file.write_text('{"key": "hunter2"}')
    check_credentials([remote])
