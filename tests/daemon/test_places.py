"""Which file a uri names, and that none outside the roots is."""

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from daemon.core.errors import InputError
from daemon.places import Places, local_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with one file in it."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "a.jsonl").write_text("x" * 120)
    return folder


@pytest.mark.parametrize("form", ["{path}", "file://{path}", "file://localhost{path}", "file:{path}", "a.jsonl"])
def test_the_ways_to_name_a_file(root: Path, form: str) -> None:
    """Absolute, relative to the first root, and as a file uri."""
    assert local_path(form.format(path=root / "a.jsonl"), (root,)) == root / "a.jsonl"


def test_names_are_decoded_in_uris_alone(root: Path) -> None:
    """A file uri is percent-decoded; a plain path is taken as it is."""
    odd = root / "50% of é#?.jsonl"
    assert local_path(f"file://{quote(str(odd))}", (root,)) == odd
    assert local_path(str(odd), (root,)) == odd
    assert local_path("a%2fb", (root,)) == root / "a%2fb"


@pytest.mark.parametrize(
    "uri",
    [
        "../a",
        "x/../../a",
        "/etc/passwd",
        "file:///etc/passwd",
        "file:///{root}/../secret",
        "file://{root}/%2e%2e/secret",
        "file://{root}/%2e%2e%2fsecret",
        "{root}-other/a",
        "link/a",
        "file://{root}/link/a",
        "out",
        "file://host/{root}/a",
        "file://127.0.0.1/{root}/a",
        "file://{root}/a%00",
        "a\0b",
        "",
        "file://",
        "file:",
        "file://[::1/a",
        "file://a℀b/x",
        "//[",
    ],
)
def test_nothing_outside_the_roots_is_named(root: Path, uri: str) -> None:
    """Dots, links, encodings, other hosts and NUL lead nowhere."""
    (root.parent / "secret").write_text("s")
    (root.parent / "root-other").mkdir()
    (root / "link").symlink_to(root.parent / "root-other")
    (root / "out").symlink_to(root.parent / "secret")
    with pytest.raises(InputError) as caught:
        local_path(uri.format(root=root), (root,))
    assert caught.value.reason == "outside_roots"


@pytest.mark.parametrize("uri", ["http://h/a", "s3://b/a", "FILES:///a", "data:,x", "c:/a"])
def test_other_schemes_are_unknown(root: Path, uri: str) -> None:
    """Only files are read for now."""
    with pytest.raises(InputError) as caught:
        local_path(uri, (root,))
    assert caught.value.reason == "unknown_scheme"


def test_links_inside_and_between_roots_are_followed(root: Path, tmp_path: Path) -> None:
    """A link is fine as long as it ends inside a root; a root may be a link itself."""
    second = tmp_path / "second"
    second.mkdir()
    (second / "b").write_text("b")
    (root / "b").symlink_to(second / "b")
    (tmp_path / "door").symlink_to(root)
    assert local_path("b", (root, second)) == second / "b"
    assert local_path("a.jsonl", (tmp_path / "door",)) == root / "a.jsonl"
    with pytest.raises(InputError):
        local_path("b", (root,))


def test_without_roots_nothing_is_named(tmp_path: Path) -> None:
    """No roots, no files."""
    with pytest.raises(InputError, match="none"):
        local_path(str(tmp_path), ())


pieces = st.sampled_from(["..", ".", "a", "link", "%2e%2e", "%00", "%2f", "/", "//", "file://", "localhost", "é", "["])


@settings(suppress_health_check=list(HealthCheck), max_examples=300)
@given(
    uri=st.text(max_size=40) | st.lists(pieces, max_size=8).map("/".join) | st.lists(pieces, max_size=8).map("".join)
)
@example(uri="file:///%ff")
@example(uri="\udcff")
def test_whatever_the_uri_the_file_lies_in_a_root(root: Path, uri: str) -> None:
    """The answer is a path inside a root, links resolved, or an InputError; never another error."""
    link = root / "link"
    if not link.is_symlink():
        link.symlink_to("/")
    try:
        path = local_path(uri, (root,))
    except InputError:
        return
    assert path.is_relative_to(root)
    assert Path(os.path.realpath(path)).is_relative_to(root)


def resolved(uri: str, root: Path) -> Path | None:
    """Return what a plain path names by the operating system's own resolution, None outside of the root."""
    path = Path(os.path.realpath(root / uri))
    return path if path.is_relative_to(os.path.realpath(root)) else None


names = st.sampled_from(["..", ".", "", "a.jsonl", "folder", "deep", "b", "up", "in", "out", "to_file", "none"])


@settings(suppress_health_check=list(HealthCheck), max_examples=500)
@given(parts=st.lists(names, min_size=1, max_size=6), absolute=st.sampled_from(["", "root", "door"]))
def test_the_short_way_names_what_resolving_names(root: Path, parts: list[str], absolute: str) -> None:
    """With links to and fro, dots and doubled slashes: the same file as by resolving every link, or none."""
    door = root.parent / "door"
    if not door.is_symlink():
        (root / "folder" / "deep").mkdir(parents=True)
        (root / "folder" / "deep" / "b").write_text("b")
        (root.parent / "other").mkdir()
        (root.parent / "other" / "b").write_text("b")
        for name, target in {"up": "..", "in": "folder", "out": "../other", "to_file": "folder/deep/b"}.items():
            (root / name).symlink_to(target)
        door.symlink_to(root)
    uri = "/".join(parts)
    if absolute:
        uri = f"{root.parent / absolute}/{uri}"
    if not uri:
        return
    for configured in (root, door):
        expected = resolved(uri, configured)
        places = Places((configured,))
        for _ in range(2):  # the second time it knows the folders
            try:
                path, status = places.find(uri)
            except InputError:
                assert expected is None
                continue
            assert Path(path) == expected
            assert status is None or os.path.samestat(status, os.stat(path))  # noqa: PTH116


def test_a_link_in_a_folders_place_is_seen_by_the_next_transaction(root: Path, tmp_path: Path) -> None:
    """What is remembered of folders holds as long as one object lives."""
    (root / "folder").mkdir()
    (root / "folder" / "b").write_text("b")
    assert Places((root,)).find("folder/b")[0] == str(root / "folder" / "b")
    (root / "folder").rename(tmp_path / "away")
    (root / "folder").symlink_to(tmp_path / "away")
    with pytest.raises(InputError, match="outside"):
        Places((root,)).find("folder/b")


def test_very_deep_paths_and_the_root_of_all(root: Path) -> None:
    """A path of two thousand folders is no more than a missing file; a root may be `/`."""
    assert Places((root,)).find("/".join("a" * 2000)) == (str(root / "/".join("a" * 2000)), None)
    path, status = Places((Path("/"),)).find(str(root / "a.jsonl"))
    assert path == str(root / "a.jsonl")
    relative = str(root / "a.jsonl").lstrip("/")
    path, status = Places((Path("/"),)).find(relative)
    assert path == str(root / "a.jsonl")
    assert status is not None
