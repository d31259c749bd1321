"""Tamper with a model or with a claim about it, as an attacker would.

python tamper.py flip FILE      change one bit in the middle of FILE
python tamper.py edit CLAIMS    claim another seed, and leave the signature as it is
"""

import base64
import json
import sys
from pathlib import Path


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    print(f"one bit of {path} is flipped")


def edit(path):
    bundle = json.loads(path.read_text())
    envelope = bundle["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["predicate"]["buildDefinition"]["externalParameters"]["seeds"] = {"numpy": "42"}
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    path.write_text(json.dumps(bundle) + "\n")
    print(f"{path} claims another seed now")


if __name__ == "__main__":
    {"flip": flip, "edit": edit}[sys.argv[1]](Path(sys.argv[2]))
