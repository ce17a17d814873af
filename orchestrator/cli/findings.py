"""What `doctor` looks at and what it says of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ClusterAccess:
    """How to reach a cluster's head: address, and files with its token and its certificate authority."""

    address: str
    token_file: str | None = None
    ca_file: str | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check: what was looked at, how it stands, and the exit code it would mean (0 when fine)."""

    name: str
    text: str
    exit_code: int = 0
    warning: bool = False

    @property
    def mark(self) -> str:
        """`ok`, `warn` or `FAIL`."""
        return "FAIL" if self.exit_code else "warn" if self.warning else "ok  "

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return {"name": self.name, "status": self.mark.strip().lower(), "text": self.text}
