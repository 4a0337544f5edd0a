"""What a flow hands back, and how it is said at the end of a command.

print(summary.text())
"""

from __future__ import annotations

from pydantic import Field

from ccai_core.config import Config


class Summary(Config):
    """What was made, where, the key numbers, and what to do next."""

    made: dict[str, str] = Field(description="Label to path or name.")
    findings: tuple[str, ...] = Field((), description="Key numbers in plain words.")
    notices: tuple[str, ...] = Field((), description="What a reader must know.")
    passed: bool = Field(True, description="Whether what was checked holds; else exit code 1.")
    next_commands: tuple[str, ...] = Field((), description="Commands that go on from here.")

    def text(self) -> str:
        """Return it as lines for a terminal."""
        width = max((len(label) for label in self.made), default=0)
        lines = [f"  {label:<{width}}  {where}" for label, where in self.made.items()]
        parts = [
            ("Notice", [f"  {notice}" for notice in self.notices]),
            ("Found", [f"  {finding}" for finding in self.findings]),
            ("Made", lines),
            ("Next", [f"  {command}" for command in self.next_commands]),
        ]
        return "\n".join("\n".join([title, *rows]) for title, rows in parts if rows)
