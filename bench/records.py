"""What benchmarks write: a record as JSON, and charts, in bench/results/."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def write_record(record: Mapping[str, Any], name: str, results: Path = RESULTS) -> None:
    """Write RESULTS/NAME.json."""
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")


def pyplot() -> Any:
    """Of matplotlib, for files alone. It is large, and imported only where something is drawn."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot
