"""What was found, for people (text), programs (JSON) and the next run (the quarantine list)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from ..pairs import listed

Severity = Literal["error", "warning", "note"]
"""error: training on it would fail or harm. warning: look at it. note: good to know."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of problem, and the pairs that have it."""

    severity: Severity
    code: str
    text: str
    keys: tuple[str, ...] = ()
    """Of the pairs; none when it is about the whole set."""

    def __str__(self) -> str:
        """What it is, which pairs have it, and what it means."""
        return f"{self.code}{f' ({listed(self.keys)})' if self.keys else ''}: {self.text}"

    def line(self) -> str:
        """For people."""
        count = f"{len(self.keys)} pair{'s' if len(self.keys) > 1 else ''}"
        pairs = f" [{count}: {listed(self.keys)}]" if self.keys else ""
        return f"{self.severity:<8}{self.code}: {self.text}{pairs}"


@dataclass(frozen=True, kw_only=True)
class LintReport:
    """All of it."""

    name: str
    pairs: int
    looked_at: int
    """How many were decoded."""
    kind: str
    """What the hints are, or seem to be."""
    numbers: Mapping[str, float]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The worst ones."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def quarantine(self) -> tuple[str, ...]:
        """Pairs that should not be trained on, in order; `data.quarantine` leaves them out."""
        return tuple(dict.fromkeys(key for finding in self.errors for key in finding.keys))

    def text(self) -> str:
        """Some lines, the worst first."""
        numbers = ", ".join(f"{name} {value:g}" for name, value in self.numbers.items())
        head = f"{self.name}: {self.pairs} pairs, {self.looked_at} looked at; hints: {self.kind}; {numbers}"
        return "\n".join([head, *(finding.line() for finding in self.findings)] if self.findings else [head, "clean"])

    def json(self) -> str:
        """Everything, pairs by name."""
        return json.dumps(asdict(self) | {"quarantine": self.quarantine}, indent=2, ensure_ascii=False)
