"""What a fault campaign counts."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts of one kind of fault: how many were tried, how many the system survived, and what went wrong."""

    name: str
    what: str
    tried: int = 0
    survived: int = 0
    failures: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, survived: bool, kind: str, failure: str = "") -> None:
        """Counts one fault of a kind; `failure` says what went wrong where it was not survived."""
        self.tried += 1
        self.survived += survived
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if not survived:
            self.failures.append(f"{kind}: {failure}")
