"""Apache Kafka's jars: which ones (pom.xml), where they lie (a cache outside the build folder), how they come there.

`make kafka` runs this module. Only Java and Maven must be there already; whatever is missing is said in one line.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
JAVA = 17
"""The oldest Java that Kafka 4's brokers run on."""


class NoBroker(Exception):
    """A broker cannot be started here; the message says why and what to do."""


def cache() -> Path:
    """Return where the jars lie; another version or another choice of jars lies elsewhere."""
    text = POM.read_text(encoding="utf-8")
    version = re.search(r"<kafka\.version>(.+?)<", text)
    assert version is not None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "rewarm" / f"kafka-{version[1]}-{sha256(text.encode()).hexdigest()[:8]}"


def jars() -> Path:
    """Return the folder with the jars; raises NoBroker where they, or a fitting Java, are missing."""
    folder = cache()
    if not folder.is_dir():
        raise NoBroker(f"Kafka's jars are not in {folder}: `make kafka` fetches them (with Maven)")
    _java()
    return folder


def fetch() -> Path:
    """Return the folder with the jars, fetched if they are not there; raises NoBroker."""
    folder = cache()
    _java()
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise NoBroker("Maven is missing, which fetches Kafka's jars: apt-get install --yes maven")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Whoever sees the folder sees all of it: it is given its name when it is complete.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        goal = [f"-DoutputDirectory={scratch}/jars", "-DincludeScope=runtime", "dependency:copy-dependencies"]
        done = subprocess.run(
            [maven, "--quiet", "--batch-mode", "--file", str(POM), *goal],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise NoBroker(f"Maven could not fetch Kafka's jars:\n{done.stdout.strip()}")
        try:
            Path(scratch, "jars").rename(folder)
        except OSError:
            if not folder.is_dir():  # else somebody else fetched them meanwhile
                raise
    return folder


def _java() -> None:
    java = shutil.which("java")
    if java is None:
        raise NoBroker(
            f"Java {JAVA} or newer is missing, which Kafka's broker runs on: apt-get install --yes default-jre-headless"
        )
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', said.stderr + said.stdout)
    if version is None or int(version[1]) < JAVA:
        raise NoBroker(
            f"Kafka's broker needs Java {JAVA} or newer, and {java} is {version[1] if version else 'unknown'}"
        )


def main() -> int:
    """Fetch what is missing and say where it is."""
    try:
        folder = fetch()
    except NoBroker as error:
        sys.stderr.write(f"{error}.\n")
        return 1
    sys.stdout.write(f"Kafka's jars are in {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
