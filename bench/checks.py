"""What a check saw, said as it goes: each point is right or wrong, with what was found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Checks:
    """Points by what they are: whether each was right, and what was found."""

    points: dict[str, tuple[bool, str]] = field(default_factory=dict)

    def see(self, what: str, is_right: bool, found: object = "") -> None:
        """Note a point and print it; one that comes again must be right every time."""
        before, _ = self.points.get(what, (True, ""))
        self.points[what] = (before and is_right, str(found))
        print(f"{'right' if is_right else 'WRONG'}: {what}{f': {found}' if str(found) else ''}", flush=True)

    @property
    def are_right(self) -> bool:
        """Whether all of them are."""
        return all(is_right for is_right, _ in self.points.values())

    @property
    def record(self) -> dict[str, dict[str, object]]:
        """For JSON."""
        return {what: {"right": is_right, "found": found} for what, (is_right, found) in self.points.items()}
