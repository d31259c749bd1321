from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.capture.environment import (
    collect_container,
    collect_environment,
    collect_memory,
    collect_processor,
    collect_system,
    collect_variables,
    collected,
    control_group_value,
    find_drift,
)
from provenance.encoding import strict_json
from provenance.statement.training import Collected, Drift

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9B14
flags\t\t: sse2 avx avx2 avx512f

processor\t: 1
vendor_id\t: Other
"""
ARM_CPUINFO = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd sve
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def machine(root: Path, files: dict[str, str]) -> Path:
    """Make a machine out of files: what a collector finds below *root*."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_real_machine_is_described_and_canonical() -> None:
    found = collect_environment(os.environ, Path("/"))
    assert found["system"].status == "ok"
    assert found["processor"].values["usable"] >= 1
    assert found["memory"].values["totalBytes"] > 2**20
    strict_json.format({name: item.values for name, item in found.items()})
    text = json.dumps({name: item.values for name, item in found.items()})
    assert os.uname().nodename not in text or os.uname().nodename in "localhost vm linux"
    assert not find_drift(found, collect_environment(os.environ, Path("/")))


def test_a_machine_without_anything_is_absent(tmp_path: Path) -> None:
    found = collect_environment({}, tmp_path)
    assert {name: item.status for name, item in found.items()} == {
        "system": "ok",
        "processor": "absent",
        "memory": "absent",
        "gpus": "absent",
        "container": "ok",
        "variables": "ok",
    }
    assert "no such file" in found["processor"].reason


def test_a_machine_that_may_not_be_read_is_denied(tmp_path: Path) -> None:
    def refuse() -> dict[str, Any]:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    assert collected(refuse) == Collected("denied", reason=f"{tmp_path}: permission denied")


def test_a_collector_that_breaks_is_an_error(tmp_path: Path) -> None:
    tmp_path.joinpath("proc", "cpuinfo").mkdir(parents=True)
    assert collect_environment({}, tmp_path)["processor"].status == "error"
    assert collected(lambda: {"a": 1 // 0}).reason.startswith("ZeroDivisionError")
    assert collected(lambda: {"a": ["\udcff", {"b": "\udcff"}]}).values == {
        "a": ["\\xff", {"b": "\\xff"}]
    }


def test_the_distribution_is_named_by_os_release(tmp_path: Path) -> None:
    text = 'NAME="Debian"\nID=debian\nVERSION_ID="12"\nBUILD_ID=\'x\'\nHOME_URL="u"\n'
    root = machine(tmp_path, {"usr/lib/os-release": text})
    assert collect_system(root, {})["distribution"] == {
        "id": "debian",
        "version": "12",
        "build": "x",
    }


def test_the_machine_is_told_by_a_keyed_digest(tmp_path: Path) -> None:
    identity = "0123456789abcdef" * 2
    digest = collect_system(machine(tmp_path, {"etc/machine-id": identity + "\n"}), {})
    assert len(digest["machineDigest"]) == 64
    assert digest["machineDigest"] != hashlib.sha256(identity.encode()).hexdigest()
    other = collect_system(machine(tmp_path, {"etc/machine-id": "uninitialized\n"}), {})
    assert "machineDigest" not in other


def test_locale_and_time_zone_are_kept(tmp_path: Path) -> None:
    environ = {"LC_ALL": "C.UTF-8", "TZ": "\udcff", "HOME": "/x"}
    assert collect_system(tmp_path, environ)["locale"] == {"LC_ALL": "C.UTF-8", "TZ": "\\xff"}


def test_a_processor_is_its_model_and_flags(tmp_path: Path) -> None:
    found = collect_processor(machine(tmp_path, {"proc/cpuinfo": CPUINFO}))
    assert found["name"] == "AMD EPYC 9B14"
    assert found["vendor"] == "AuthenticAMD"
    assert found["flags"] == "avx avx2 avx512f sse2"
    assert found["flagsDigest"] == hashlib.sha256(b"avx avx2 avx512f sse2").hexdigest()
    assert found["count"] == os.cpu_count()


def test_an_arm_processor_has_features(tmp_path: Path) -> None:
    found = collect_processor(machine(tmp_path, {"proc/cpuinfo": ARM_CPUINFO}))
    assert (found["implementer"], found["part"]) == ("0x41", "0xd40")
    assert found["flags"] == "asimd fp sve"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, "150"),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, "max"),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n"}, "-1"),
        ({"proc/self/cgroup": "0::/../../x\n", "x/cpu.max": "1\n"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_the_control_group(
    tmp_path: Path, files: dict[str, str], quota: str | None
) -> None:
    found = control_group_value(machine(tmp_path, files), "cpu.max", "cpu/cpu.cfs_quota_us")
    assert found == quota if quota is None else str(found).startswith(quota)


def test_memory_is_in_bytes(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/meminfo": "MemTotal:   1024 kB\nMemFree: 1 kB\nSwapTotal:  2 kB\n",
            "sys/fs/cgroup/memory.max": "1073741824\n",
        },
    )
    assert collect_memory(root) == {
        "totalBytes": 2**20,
        "swapBytes": 2048,
        "limitBytes": 2**30,
    }
    for unlimited in ("max", "9223372036854771712", "9223372036854710272"):  # by size of a page
        assert collect_memory(machine(tmp_path, {"sys/fs/cgroup/memory.max": unlimited})) == {
            "totalBytes": 2**20,
            "swapBytes": 2048,
        }
    assert collect_memory(machine(tmp_path, {"proc/meminfo": "nothing of ours\n"})) == {}


def test_containers_leave_hints(tmp_path: Path) -> None:
    root = machine(tmp_path, {".dockerenv": "", "proc/self/cgroup": "0::/kubepods/x\n"})
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "SLURM_JOB_ID": "7", "CI": ""}
    assert collect_container(root, environ) == {
        "hints": ["cgroup:kubepods", "docker", "kubernetes", "slurm"]
    }


def test_only_variables_of_the_list_are_kept() -> None:
    environ = {
        "OMP_NUM_THREADS": "4",
        "XLA_FLAGS": "--xla_dump_to=/home/alice/x",
        "JAX_ACCESS_TOKEN": "t",
        "NCCL_SIGNING_KEY": "k",
        "NCCL_SIGNING_KEYS": "f7Qk29xLw03mZt81",
        "NCCL_NET_TOKENS": "4096",
        "TF_SERVICE_KEY": "a1b2c3d4e5f6a7b8",
        "TF_VAR_db": "terraform",
        "PYTORCH_INDEX": "https://u:p@h/x",
        "MKL_X": "\udcff",
        "NPY_LONG": "x" * 5000,
        "CUSTOMER_NAME": "ACME",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "TF_CONFIG": '{"cluster":{"worker":["w0.corp.internal:1"]}}',
        "JAX_COORDINATOR_ADDRESS": "w0.corp.internal:1",
        "NCCL_COMM_ID": "w0.corp.internal:1",
    }
    found = collect_variables(environ | {"HOME": "/home/alice"})
    assert found["variables"] == {
        "OMP_NUM_THREADS": "4",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "XLA_FLAGS": "--xla_dump_to=~/x",
        "NCCL_NET_TOKENS": "4096",
        "PYTORCH_INDEX": "https://${redacted:user}@${redacted:host}/x",
        "MKL_X": "\\xff",
        "NPY_LONG": "x" * 1024,
    }
    assert found["leftOut"] == 4
    assert found["others"] == 10


def test_drift_names_what_changed() -> None:
    start = {
        "variables": Collected("ok", {"variables": {"A": "1", "B": "2"}}),
        "gpus": Collected("ok", {"driver": "1"}),
        "only-before": Collected("ok"),
    }
    end = {
        "variables": Collected("ok", {"variables": {"A": "1", "B": "3", "C": "4"}}),
        "gpus": Collected("error", reason="gone"),
        "only-after": Collected("ok"),
    }
    assert find_drift(start, end) == (
        Drift("gpus", "driver", "1", None),
        Drift("gpus", "status", "ok", "error"),
        Drift("variables", "variables.B", "2", "3"),
        Drift("variables", "variables.C", None, "4"),
    )
    assert find_drift(start, start) == ()


@given(st.text(), st.text())
def test_any_text_in_proc_is_read(
    tmp_path_factory: pytest.TempPathFactory, first: str, second: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "machine"
    for name in ("proc/cpuinfo", "proc/meminfo", "proc/self/cgroup", "etc/os-release"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{first}\n{second}".encode("utf-8", "surrogatepass"))
    found = collect_environment({"OMP_X": first.replace("\0", "")}, root)
    strict_json.format({name: item.values for name, item in found.items()})
