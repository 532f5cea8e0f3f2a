"""Report: what a bench found as plain dictionaries: every repetition, medians, ratios, settings, versions, machine. For JSON.

Its keys are the columns of the tables on the screen.
"""

import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from statistics import median

from llamita import __version__
from llamita.bench.peers import Peer
from llamita.bench.protocol import Protocol
from llamita.bench.rounds import OWN, Findings
from llamita.bench.subject import Subject
from llamita.processor import cpu_name


def report(protocol: Protocol, peers: Sequence[Peer], models: list[dict]) -> dict:
    """The whole bench: what describe_model made of each model, and what all of them share."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"llamita": __version__, "python": platform.python_version()}
        | {package: version(package) for package in ("numpy", "numba", "llvmlite")},
        "machine": describe_machine(),
        "settings": protocol.to_dict(),
        "peers": [peer.to_dict() for peer in peers],
        "models": models,
    }


def describe_machine() -> dict:
    """The processor, and how busy others keep it."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.platform(), "load_average_1_minute": load}


def describe_model(subject: Subject, findings: Findings) -> dict:
    """One model: its tests in the order they ran, and what they cost in bytes."""
    config, protocol = subject.model.config, findings.protocol
    return {
        "model": subject.label,
        "dtype": subject.stored,
        "group": subject.group,
        "parameters": config.n_parameters,
        "config": config.to_dict(),
        "instruction_set": findings.isa,
        "protocol": protocol.to_dict(),
        "tests": [describe_test(findings, test, who) for test, who in sorted(findings.rates, key=_own_beside_peers(findings))],
        "bandwidth": describe_bandwidth(findings),
        "start": describe_starts(subject, findings),
        "notes": findings.notes,
    }


def _own_beside_peers(findings: Findings):
    """A key that sorts rows by test, in the order of their first measurement, ours first."""
    tests = list(dict.fromkeys(test for test, _ in findings.rates))
    return lambda row: (tests.index(row[0]), row[1] != OWN)


def describe_test(findings: Findings, test: str, who: str) -> dict:
    """One row. ratio: our speed in this test over theirs, for our special tests over our own decode; the median of rounds."""
    rates, decode = findings.rates[test, who], findings.protocol.decode
    ratios = None
    if who != OWN:
        ratios = findings.ratios(test, (test, who))
    elif test not in (decode, findings.protocol.prefill):
        ratios = findings.ratios(test, (decode, OWN))
    return {
        "test": test,
        "who": who,
        "median": median(rates),
        "min": min(rates),
        "max": max(rates),
        "tokens_per_second": rates,
        "ratio": median(ratios) if ratios else None,
        "ratio_to": None if not ratios else who if who != OWN else decode,
    }


def describe_bandwidth(findings: Findings) -> dict:
    """Bytes that a token costs, at what rate decoding moved them, what reading alone reaches (None: nothing is packed)."""
    achieved = findings.bytes_per_token * median(findings.rates[findings.protocol.decode, OWN])
    bandwidth = median(findings.read_bandwidths) or None
    return {
        "bytes_per_token": findings.bytes_per_token,
        "achieved_bytes_per_second": achieved,
        "read_bytes_per_second": bandwidth,
        "share": achieved / bandwidth if bandwidth else None,
        "read_bytes_per_second_passes": findings.read_bandwidths,
    }


def describe_starts(subject: Subject, findings: Findings) -> dict | None:
    """`llamita run` in fresh processes: medians, and the memory that it cannot do without."""
    if not findings.starts:
        return None
    keys = ("first_byte_seconds", "whole_seconds", "tokens_per_second", "peak_bytes")
    medians = {key: median_or_none([seen[key] for seen in findings.starts]) for key in keys}
    return medians | {
        "weight_bytes": subject.model.n_bytes,
        "kv_bytes": subject.model.config.context * subject.model.cache_bytes_per_token,
        "tokens": findings.protocol.decode_tokens,
        "processes": findings.starts,
    }


def median_or_none(values: Sequence[float | None]) -> float | None:
    """The median of what is known."""
    known = [value for value in values if value is not None]
    return median(known) if known else None
