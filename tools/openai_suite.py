"""openai-python's own tests against `llamita serve`: those of what llamita has, all of which must pass.

    python tools/openai_suite.py --llamita .venv/bin/llamita        # with the group `openai`, see Makefile

The tests come from the source distribution of the installed release. docs/serving.md says which apply, and why others do not.
"""

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from served import served

FILES = ("test_completions.py", "chat/test_completions.py", "test_models.py")
# Left out: what is stored on OpenAI's side (retrieve, update, list and delete of chat completions, deletion of models), and
# completions with every parameter, as they have a suffix, which llamita refuses.
CHOICE = {
    "test_completions.py": "create and not with_all_params",
    "chat/test_completions.py": "create",
    "test_models.py": "(retrieve or list)",
}


def main() -> int:
    """Run the suite; the exit status is pytest's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llamita", default="llamita", help="the command that serves")
    parser.add_argument("--verbose", action="store_true", help="name every test")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = fetch_tests(Path(folder))
        with served([options.llamita], "--alias", model_name(source)) as url:
            statuses = [run_tests(source, name, f"{url}/v1", options.verbose) for name in FILES]
    return max(statuses)


def fetch_tests(folder: Path) -> Path:
    """Download the source distribution of the installed openai and unpack its tests."""
    name = f"openai=={version('openai')}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", str(folder), name]
    subprocess.run(command, check=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        members = [member for member in archive.getmembers() if member.name.partition("/")[2].startswith("tests/")]
        archive.extractall(folder, members, filter="data")
    return folder / f"openai-{version('openai')}"


def model_name(source: Path) -> str:
    """The model whose description the tests ask for."""
    asked = re.search(r'models\.retrieve\(\s*"([^"]+)"', (source / "tests/api_resources/test_models.py").read_text("utf-8"))
    assert asked, "the tests ask for no model"
    return asked[1]


def run_tests(source: Path, name: str, url: str, verbose: bool) -> int:
    """Run the tests of one file that apply."""
    print(f"== {name}: {CHOICE[name]}", flush=True)
    flags = [
        "-v" if verbose else "-q",
        "-o",
        "asyncio_mode=auto",
        "-o",
        "asyncio_default_fixture_loop_scope=session",
        "-p",
        "no:cacheprovider",
        "-k",
        CHOICE[name],
    ]
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", ".", *flags, f"tests/api_resources/{name}"]
    return subprocess.run(command, cwd=source, env=os.environ | {"TEST_API_BASE_URL": url}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
