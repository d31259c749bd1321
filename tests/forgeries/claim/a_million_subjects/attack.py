"""Alice signs her claim again, about a million models more."""

from pathlib import Path
from tempfile import TemporaryDirectory

from tests.world import make_person, payload_of, sign_payload


def attack(_: object) -> None:
    path = Path("model/claims.jsonl")
    subjects = b'{"name":"m","digest":{"a":"00"}},' * 10**6
    payload = payload_of(path.read_bytes()).replace(b'"subject":[', b'"subject":[' + subjects)
    with TemporaryDirectory() as folder:
        alice = make_person(Path(folder), "alice")
        path.write_bytes(sign_payload(payload, alice) + b"\n")
        Path("alice.pub").write_bytes(alice.public.read_bytes())
