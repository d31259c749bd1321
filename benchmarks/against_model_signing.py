"""Measure provenance against the OpenSSF reference tool, model_signing, in the same run.

    make bench                                 everything: 5 GB of disk, some minutes
    make bench ARGS="--only start small"       a part (start, big, small)
    python benchmarks/against_model_signing.py --peer PATH/TO/model_signing --folder /tmp/bench

Each case runs both tools in turn, several times, on the same warm files, and prints the median
time in seconds, the largest resident size in MB, and the ratio of the medians (provenance / peer),
also of the processor's seconds, beside its goal. Machines are noisy: the ratio counts, not the
seconds, and that of the processor's where others are at work. Where the peer is not installed, its
columns say so. With ``--before``, another version of provenance runs in turn with them, and the
last columns are the ratios of both times to it. Last comes what ``import provenance`` adds to the
start of Python.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.commands import OURS, Command, Run, in_turn, program, run

BIG_FILES, BIG_BYTES = 8, 512 * 2**20
SMALL_FILES, SMALL_BYTES = 100_000, 4096

VECTORS = Path(__file__).resolve().parents[1] / "tests/vectors"
KEYLESS = "openssf-model-signing/v1.1.0-sigstore"
PROVIDER = "https://sigstore.verify.ibm.com/oauth2"
WHO = ["--identity", "stefanb@us.ibm.com"]

CONFIG = """{
  "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
  "signingConfig": {"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"},
  "trustedRoot": %s
}"""

CERTIFY = """
test ! -e leaf.pem || exit 0
new() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }
new root.key
openssl req -x509 -new -key root.key -subj /CN=root -days 30 -out root.pem \\
  -addext keyUsage=critical,keyCertSign
new leaf.key
openssl req -new -key leaf.key -subj /CN=signer -out leaf.csr
printf 'keyUsage=critical,digitalSignature\\nextendedKeyUsage=codeSigning\\n' > leaf.ext
openssl x509 -req -in leaf.csr -CA root.pem -CAkey root.key -days 30 -extfile leaf.ext -out leaf.pem
"""
"""Makes the certificate of a signer, and that of the authority which issued it."""


@dataclass(frozen=True)
class Case:
    """One comparison: both command lines, repetitions, and the goal for the ratio."""

    name: str
    ours: list[str]
    theirs: list[str]
    repetitions: int
    goal: str


def main() -> None:
    """Make the data, run the cases, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peer", default=os.environ.get("PROVENANCE_PEER", "model_signing"))
    parser.add_argument("--folder", type=Path, help="where the data goes, and stays")
    parser.add_argument("--before", metavar="PROGRAM", help="'provenance' of another version")
    parser.add_argument("--only", nargs="+", default=["start", "big", "small"])
    parser.add_argument("--repeat", type=int, default=15, help="at most so many runs of a case")
    arguments, _ = parser.parse_known_args()
    before = program(arguments.before) if arguments.before else None
    peer = shutil.which(arguments.peer)
    if peer is None:
        print("model_signing is not installed (requirements/peer.txt): its columns stay empty")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="provenance-bench-"))
    try:
        run_cases(folder, (peer, before), arguments.only, arguments.repeat)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)


def run_cases(
    folder: Path, others: tuple[str | None, str | None], only: list[str], most: int
) -> None:
    """Run the cases named in *only* on data below *folder*, in turn with the peer and before."""
    peer, before = others
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "key"
    if not key.exists():
        subprocess.run([OURS, "keygen", str(key)], check=True, stdout=subprocess.DEVNULL)
    print(
        f"{'case':<24}{'ours s':>9}{'MB':>6}{'peer s':>9}{'MB':>6}{'ratio':>8}{'of cpu':>8}  goal"
    )
    for case in make_cases(folder, [OURS], [peer or "model_signing"], only):
        commands = {"ours": Command(case.ours)}
        if peer:
            commands["peer"] = Command(case.theirs)
        if before:
            commands["before"] = Command([before, *case.ours[1:]])
        found = in_turn(commands, min(case.repetitions, most))
        print(row(case, found["ours"], found.get("peer"), found.get("before")), flush=True)
    if "start" in only:
        words = {"with": "import provenance", "without": "pass"}
        found = in_turn({k: Command([sys.executable, "-c", v]) for k, v in words.items()}, 15)
        added = (found["with"].processor - found["without"].processor) * 1000
        print(f"import provenance adds {added:.1f} ms of the processor; goal < 30")


def make_cases(folder: Path, ours: list[str], peer: list[str], only: list[str]) -> Iterator[Case]:
    """Yield the cases; each makes the files that it needs. Both tools verify what ours signed."""
    sign = ["--key", str(folder / "key")], ["key", "--private_key", str(folder / "key")]
    key = ["--key", str(folder / "key.pub")], ["key", "--public_key", str(folder / "key.pub")]

    def signing(name: str, model: Path, repetitions: int, goal: str) -> Case:
        words = [*peer, "sign", *sign[1], str(model), "--signature", f"{model}.peer.sig"]
        return Case(name, [*ours, "sign", str(model), *sign[0]], words, repetitions, goal)

    def verifying(
        name: str, model: Path, trusted: tuple[list[str], list[str]], repetitions: int, goal: str
    ) -> Case:
        at = [str(model), "--signature", f"{model / 'model.sig'}"]
        words = [*ours, "verify", *at, *trusted[0]], [*peer, "verify", *trusted[1], *at]
        return Case(name, *words, repetitions, goal)

    if "start" in only:
        yield Case("--help", [*ours, "--help"], [*peer, "--help"], 15, "<= 0.12")
        tiny = make_files(folder / "tiny", 4, 100)
        run(Command([*ours, "sign", str(tiny), *sign[0]]))
        yield verifying("verify 4 files by key", tiny, key, 15, "<= 0.25")
        certified = make_files(folder / "certified", 4, 100)
        subprocess.run(["/bin/sh", "-ec", CERTIFY], cwd=folder, check=True, capture_output=True)
        words = ["--signing-certificate", str(folder / "leaf.pem")]
        run(Command([*ours, "sign", str(certified), "--key", str(folder / "leaf.key"), *words]))
        root = str(folder / "root.pem")
        by = ["--certificate-chain", root], ["certificate", "--certificate_chain", root]
        yield verifying("  by certificate", certified, by, 15, "<= 0.3")
        said = (VECTORS / "sigstore/trusted_root.production.json").read_text()
        (folder / "root.json").write_text(said)
        (folder / "config.json").write_text(CONFIG % said)
        keyless = shutil.copytree(VECTORS / KEYLESS, folder / "keyless", dirs_exist_ok=True)
        by = (
            [*WHO, "--identity-provider", PROVIDER, "--trust-config", str(folder / "root.json")],
            [
                *("sigstore", *WHO, "--identity_provider", PROVIDER),
                *("--trust_config", str(folder / "config.json")),
                *("--ignore-paths", str(keyless / "ignore-me")),
            ],
        )
        yield verifying("  keyless, offline", keyless, by, 15, "<= 0.3 s of cpu")
    if "big" in only:
        big = make_files(folder / "big", BIG_FILES, BIG_BYTES)
        yield signing("sign 8 x 512 MiB", big, 5, "<= 0.84")
    if "small" in only:
        small = make_files(folder / "small", SMALL_FILES, SMALL_BYTES)
        yield signing("sign 100,000 x 4 KiB", small, 3, "<= 0.1, <= 100 MB")
        yield verifying("verify them by key", small, key, 3, "<= 0.1, <= 100 MB")


def make_files(folder: Path, count: int, size: int) -> Path:
    """Return *folder* with *count* files of *size* random bytes, a thousand a subfolder."""
    if not folder.exists():
        for number in range(count):
            part = folder / f"part-{number // 1000:03d}"
            part.mkdir(parents=True, exist_ok=True)
            with (part / f"{number:06d}.safetensors").open("wb") as file:
                for start in range(0, size, 2**24):
                    file.write(os.urandom(min(2**24, size - start)))
    return folder


def row(case: Case, ours: Run, theirs: Run | None, before: Run | None) -> str:
    """Return the table's row for *case*."""
    line = f"{case.name:<24}{ours.seconds:>9.3f}{ours.megabytes:>6.0f}"
    if theirs is None:
        line += f"{'-':>9}{'-':>6}{'-':>8}{'-':>8}"
    else:
        ratios = ours.seconds / theirs.seconds, ours.processor / theirs.processor
        line += f"{theirs.seconds:>9.3f}{theirs.megabytes:>6.0f}"
        line += "".join(f"{ratio:>8.2f}" for ratio in ratios)
    line += f"  {case.goal:<20}"
    if before is not None:
        ratios = ours.seconds / before.seconds, ours.processor / before.processor
        line += "/before {:.2f}, cpu {:.2f}".format(*ratios)
    return line


if __name__ == "__main__":
    main()
