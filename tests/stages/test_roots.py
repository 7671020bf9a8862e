"""Which urls lie plainly below a root elsewhere."""

from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.roots import Remote, elsewhere, remote_of

S3 = Remote(url="s3://bucket/in")
HTTP = Remote(url="https://data.example.org:8443/corpora")
ROOTS = ("/data/inbox", S3, HTTP)


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("s3://bucket/in/a.jsonl", S3),
        ("s3://bucket/in/2026/03/a b.jsonl.gz", S3),
        ("s3://bucket/in/größe=7%/a..b/...", S3),
        ("https://data.example.org:8443/corpora/a%20b.txt", HTTP),
        ("https://data.example.org:8443/corpora/100%25.txt", HTTP),
    ],
)
def test_plain_urls_below_a_root(uri: str, root: Remote) -> None:
    """Whatever a name is made of, folders are parted by slashes."""
    assert remote_of(uri, ROOTS) == root
    assert elsewhere(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/in",
        "s3://bucket/in/",
        "s3://bucket/input/a",
        "s3://bucket/a",
        "s3://Bucket/in/a",
        "S3://bucket/in/a",
        "s3a://bucket/in/a",
        "gs://bucket/in/a",
        "s3://bucket.evil/in/a",
        "s3://bucket/in/../a",
        "s3://bucket/in/./a",
        "s3://bucket/in//a",
        "s3://bucket/in/a/",
        "s3://bucket/in/..",
        "s3://bucket/in/%2e%2e/a",
        "s3://bucket/in/%2E./a",
        "s3://bucket/in/%252e%252e/a",
        "s3://bucket/in/a%2fb",
        "s3://bucket/in/a%255cb",
        "s3://bucket/in/a\\..\\b",
        "s3://bucket/in/a?versionId=1",
        "s3://bucket/in/a%3fb",
        "s3://bucket/in/a#b",
        "s3://bucket/in/a\nb",
        "s3://bucket/in/a%00",
        "s3://bucket/in/a::https://data.example.org/a",
        "https://data.example.org/corpora/a",
        "http://data.example.org:8443/corpora/a",
        "https://data.example.org:8443@evil.example.org/corpora/a",
        "https://me:word@data.example.org:8443/corpora/a",
        "https://data.example.org:8443/corpora/../private",
        "file:///data/inbox/a",
        "/data/inbox/a",
        "in/a",
    ],
)
def test_what_is_not_plainly_below_a_root(uri: str) -> None:
    """Another scheme, host or folder, and every way of writing one that somebody might read otherwise."""
    assert remote_of(uri, ROOTS) is None


@given(st.text(alphabet="a./%25eEfF\\", max_size=12), st.integers(0, 3))
def test_no_decoding_leads_out(path: str, times: int) -> None:
    """However often a server decodes what is let in, it stays as deep below the root as it was."""
    if remote_of(f"{S3.url}/{path}", ROOTS) is None:
        return
    decoded = path
    for _ in range(times):
        decoded = unquote(decoded)
    assert decoded.count("/") == path.count("/")
    assert not {"", ".", ".."} & set(decoded.split("/"))
    assert "\\" not in decoded


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\?#%:"), min_size=1)))
def test_quoted_names_are_let_in(parts: list[str]) -> None:
    """A name that is quoted once, as addresses are, is plain unless it is made of dots alone."""
    if not parts or {".", ".."} & set(parts):
        return
    path = "/".join(quote(part) for part in parts)
    assert remote_of(f"{HTTP.url}/{path}", ROOTS) == HTTP
