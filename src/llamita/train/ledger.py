"""The lines of a plan: each choice with its reason, in the order in which they were made, and what speaks against them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PlanLine:
    """One step of the arithmetic: what was chosen, from what, and the value."""

    what: str
    how: str
    value: str


@dataclass
class Ledger:
    """Where the functions of a plan write down what they choose; `overrides` are the values that the user gave by name."""

    overrides: Mapping[str, Any]
    lines: list[PlanLine] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, what: str, how: str, value: object) -> None:
        """Write a line down."""
        self.lines.append(PlanLine(what, how, readable(value)))

    def choose(self, name: str, value: Any, how: str) -> Any:
        """Write down and return the value of a field: the user's where he gave one, else ours."""
        if name in self.overrides:
            value, how = self.overrides[name], "given"
        self.add(name.replace("_", " "), how, value)
        return value

    def warn(self, text: str) -> None:
        """Write down what speaks against the plan."""
        self.warnings.append(text)


def readable(value: object) -> str:
    """A value as people read it: thousands apart, no more digits than matter."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def amount(value: float, unit: str) -> str:
    """A large number with a decimal prefix: 15.2 MB, 3.1 TFLOP."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if abs(value) < 999.5:
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:.3g} Z{unit}"
