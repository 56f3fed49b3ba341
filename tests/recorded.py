"""Facts recorded from the published implementation: small ones lie in tests/data, others may be given."""

import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(os.environ.get("MINIGPT4_FIXTURES", Path(__file__).parent / "data"))


def recorded(name: str) -> Any:
    """A file of recorded facts, such as "common/boxes.json": from $MINIGPT4_FIXTURES if that is set, or our own."""
    return json.loads((ROOT / name).read_text(encoding="utf-8"))
