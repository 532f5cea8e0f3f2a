"""Two `llamita serve` behind nginx with examples/nginx.conf, under load; one is killed, and comes back.

    python tools/nginx_failover.py --llamita .venv/bin/llamita --nginx /usr/sbin/nginx

Exit 1 unless every request that began after the kill was answered, and broken streams were those of the killed server only.
"""

import argparse
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

from served import wait_until_ready

CONFIG = Path(__file__).resolve().parent.parent / "examples" / "nginx.conf"
BODY = {"prompt": "Once upon a time", "max_tokens": 300, "stream": True, "ignore_eos": True}


def main() -> int:
    """Run the trial and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llamita", default="llamita", help="the command that serves")
    parser.add_argument("--nginx", default="nginx", help="the command nginx")
    parser.add_argument("--streams", type=int, default=8, help="clients at once")
    parser.add_argument("--seconds", type=float, default=6.0, help="before the kill, after it, and after the return")
    options = parser.parse_args()
    front, *backs = [free_port() for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        config = CONFIG.read_text("utf-8")
        for old, new in zip((8080, 8081, 8082), (front, *backs), strict=True):
            config = config.replace(f":{old}", f":{new}")
        (Path(folder) / "nginx.conf").write_text(config, encoding="utf-8")
        servers = [start(options.llamita, port) for port in backs]
        nginx = subprocess.Popen([options.nginx, "-p", folder, "-e", "stderr", "-c", "nginx.conf"], stderr=subprocess.DEVNULL)
        try:
            wait_until_ready(f"http://127.0.0.1:{front}")
            return trial(options, front, backs, servers)
        finally:
            for process in (nginx, *servers):
                process.terminate()
                process.wait()


def trial(options: argparse.Namespace, front: int, backs: list[int], servers: list[subprocess.Popen]) -> int:
    """Load, kill, load, restart, load; 1 where a client was failed that need not be."""
    load = Load(f"http://127.0.0.1:{front}/v1/completions", options.streams)
    time.sleep(options.seconds)
    load.phase = "at the kill"
    servers[0].kill()
    killed = time.monotonic()
    time.sleep(options.seconds)
    servers[0].wait()
    servers[0] = start(options.llamita, backs[0])
    load.phase = "after the return"
    time.sleep(options.seconds)
    load.stop()
    with urllib.request.urlopen(f"http://127.0.0.1:{backs[0]}/metrics") as metrics:
        returned = b'llamita_requests_total{route="/completions",status="200"}' in metrics.read()
    broken = [began for began, ended in load.broken if began < killed <= ended + 1]
    unexplained = len(load.broken) - len(broken)
    print(f"{sum(load.done.values())} streams came whole: {dict(load.done)}")
    print(f"{len(broken)} were broken by the kill, {unexplained} otherwise")
    print(f"the server that came back {'serves again' if returned else 'got nothing'}")
    return int(unexplained > 0 or len(broken) > options.streams or not returned)


class Load:
    """Clients that stream one answer after the other. done: whole answers by phase; broken: when those began and ended."""

    def __init__(self, url: str, n_clients: int) -> None:
        self.phase = "before the kill"
        self.done: Counter[str] = Counter()
        self.broken: list[tuple[float, float]] = []
        self._url, self._is_over = url, False
        self._threads = [threading.Thread(target=self._go_on) for _ in range(n_clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each client finish."""
        self._is_over = True
        for thread in self._threads:
            thread.join()

    def _go_on(self) -> None:
        while not self._is_over:
            began = time.monotonic()
            if self._stream():
                self.done[self.phase] += 1
            else:
                self.broken.append((began, time.monotonic()))

    def _stream(self) -> bool:
        """Whether an answer came whole."""
        request = urllib.request.Request(self._url, json.dumps(BODY).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read().endswith(b"data: [DONE]\n\n")
        except (http.client.HTTPException, OSError):  # HTTP errors and connections that end are of these
            return False


def start(llamita: str, port: int) -> subprocess.Popen:
    """A server at a port, ready."""
    process = subprocess.Popen([llamita, "serve", "--port", str(port), "--threads", "1"], stderr=subprocess.DEVNULL)
    wait_until_ready(f"http://127.0.0.1:{port}")
    return process


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
