"""Rounds: our engine and its peers in turn, A B A B, so that all meet the same minutes of a machine that others use too.

A peer that fails is named once and left out from then on.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llamita.bench.own import OwnRun, busy_core
from llamita.bench.peers import Peer, achieved
from llamita.bench.protocol import Protocol
from llamita.bench.subject import Subject
from llamita.errors import LlamitaError

OWN = "llamita"
BANDWIDTH_PASSES = 5  # per round
STREAM, STEP, BATCH, BUSY = "streamed", "one call a token", "sequences at once", "beside a busy core"
Tell = Callable[[str], None]  # progress and failures, for the user to see


@dataclass
class Findings:
    """What was measured of one subject: tokens per second of each round by (test, who), and the rest."""

    protocol: Protocol
    isa: str = ""
    rates: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    read_bandwidths: list[float] = field(default_factory=list)
    bytes_per_token: int = 0
    starts: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def record(self, test: str, who: str, rate: float) -> None:
        """Add one repetition."""
        self.rates.setdefault((test, who), []).append(rate)

    def ratios(self, test: str, to: tuple[str, str]) -> list[float]:
        """Our rate in a test, divided by another row's rate of the same round."""
        return [ours / theirs for ours, theirs in zip(self.rates[test, OWN], self.rates[to], strict=False)]


def run_rounds(subject: Subject, wanted: Protocol, peers: Sequence[Peer], tell: Tell) -> Findings:
    """Measure a subject under the protocol, cut to its context. `tell` hears of progress and failures."""
    protocol = wanted.fitted(subject.model.config)
    findings = Findings(protocol)
    able = [peer for peer in peers if subject.dtype in peer.dtypes]
    for peer in peers:
        if peer not in able:
            findings.notes.append(f"{peer.label}: runs {' '.join(peer.dtypes)} only, left out for {subject.dtype}")
    with OwnRun(subject, protocol) as own:
        findings.isa, findings.bytes_per_token = own.engine.isa, own.bytes_per_token()
        for i in range(protocol.repetitions):
            tell(f"{subject.label} {subject.dtype}: round {i + 1} of {protocol.repetitions}")
            if able or i == 0:
                own.warm_up()  # a peer has filled the caches with its own
            _measure_own(own, findings)
            for peer in list(able):
                if not _measure_peer(peer, subject, findings):
                    able.remove(peer)
        if protocol.busy:
            tell(f"{subject.label} {subject.dtype}: beside a busy core")
            with busy_core():
                for _ in range(protocol.repetitions):
                    findings.record(BUSY, OWN, own.decode())
    if protocol.start:
        _measure_starts(subject, findings, tell)
    return findings


def _measure_own(own: OwnRun, findings: Findings) -> None:
    protocol = findings.protocol
    findings.record(protocol.prefill, OWN, own.prefill())
    findings.record(protocol.decode, OWN, own.decode())
    findings.read_bandwidths += [own.read_bandwidth() for _ in range(BANDWIDTH_PASSES)]  # weights as warm as decoding left them
    findings.record(STREAM, OWN, own.stream())
    findings.record(STEP, OWN, own.step())
    if protocol.batch > 1:
        findings.record(f"{protocol.batch} {BATCH}", OWN, own.batch())


def _measure_peer(peer: Peer, subject: Subject, findings: Findings) -> bool:
    try:
        rates = peer.measure(subject, findings.protocol)
    except LlamitaError as failure:
        line = str(failure)
        findings.notes.append(line if line.startswith(peer.label) else f"{peer.label}: {line}")
        return False
    for test, rate in rates.items():
        findings.record(test, peer.label, rate)
    return True


def _measure_starts(subject: Subject, findings: Findings, tell: Tell) -> None:
    """Start `llamita run` in fresh processes: one to warm up, then the repetitions."""
    protocol = findings.protocol
    command = [sys.executable, "-m", "llamita", "run", *subject.own_command, "-t", "0"]
    command += ["-n", protocol.decode_tokens, "--threads", protocol.n_threads, "--logit-bias", "1=-inf"]  # BOS would end it
    tell(f"{subject.label} {subject.dtype}: starting fresh processes")
    for i in range(1 + protocol.repetitions):
        seen = watch_process([str(word) for word in command])
        if seen["status"] or seen["first_byte_seconds"] is None:
            findings.notes.append(
                f"start and memory: llamita run ended with status {seen['status']}: {seen['stderr'][-200:]!r}"
            )
            return
        if i > 0:
            findings.starts.append(seen | {"tokens_per_second": achieved(seen["stderr"])})


def watch_process(command: list[str]) -> dict:
    """What witness.py sees of a command."""
    witness = [sys.executable, "-m", "llamita.bench.witness", *command]
    return json.loads(subprocess.run(witness, capture_output=True, encoding="utf-8", check=True).stdout)
