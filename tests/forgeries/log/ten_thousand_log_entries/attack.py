"""The claim's entry in the log stands in the bundle ten thousand times."""

import json
from pathlib import Path


def attack(_: object) -> None:
    path = Path("model/claims.jsonl")
    bundle = json.loads(path.read_bytes())
    bundle["verificationMaterial"]["tlogEntries"] *= 10**4
    path.write_text(f"{json.dumps(bundle)}\n")
