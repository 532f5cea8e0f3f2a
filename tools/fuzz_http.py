"""schemathesis over the description of our own server: all its checks, on requests that the schema allows and forbids.

    python tools/fuzz_http.py --llamita .venv/bin/llamita --examples 200       # with the group `fuzz-http`, see Makefile

One check is told more than it knows: no OpenAPI says whether a text fits the context, or a schema can be held. So a request
that the schema allows may get 400, but never with the code of what the schema forbids (tools/fuzz_http_hooks.py).
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from served import served

KEY = "a-key-for-the-test"
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, 429]
"""


def main() -> int:
    """Run schemathesis; the exit status is its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llamita", default="llamita", help="the command that serves")
    parser.add_argument("--examples", type=int, default=200, help="requests of each kind for each route")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same requests")
    options = parser.parse_args()
    small = ("--context", "48", "--max-queue", "1000", "--api-key", KEY)
    with tempfile.TemporaryDirectory() as folder, served([options.llamita], *small) as url:
        config = Path(folder) / "schemathesis.toml"
        config.write_text(CONFIG, encoding="utf-8")
        command = [
            str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(config), "run", f"{url}/openapi.json",
            "--checks", "all", "--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--max-response-time", "10",
            "--max-examples", str(options.examples), "--seed", str(options.seed), "--header", f"Authorization: Bearer {KEY}",
        ]  # fmt: skip
        hooks = {"SCHEMATHESIS_HOOKS": "fuzz_http_hooks", "PYTHONPATH": str(Path(__file__).parent)}
        return subprocess.run(command, cwd=folder, env=os.environ | hooks, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
