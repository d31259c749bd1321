"""Environment variables that decide bits, speed or the shape of a training: an allow-list.

The other variables are counted, not named: their names alone can tell of customers and services.
So are those of the list whose values name machines.
A variable of the list that is secret by the rule for arguments is left out; the values of the
others are redacted like arguments.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from provenance.capture.redact import is_secret, readable, redact_text
from provenance.statement.training import Collected

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIXES = (
    "ATEN_",
    "BLIS_",
    "CUBLAS_",
    "CUBLASLT_",
    "CUDA_",
    "CUDNN_",
    "DNNL_",
    "FLASH_ATTENTION_",
    "GLOO_",
    "GOMP_",
    "HIP_",
    "HSA_",
    "JAX_",
    "KMP_",
    "MIOPEN_",
    "MKL_",
    "NCCL_",
    "NPY_",
    "NUMBA_",
    "NUMEXPR_",
    "OMP_",
    "ONEDNN_",
    "OPENBLAS_",
    "PYTORCH_",
    "RCCL_",
    "ROCBLAS_",
    "TF_",
    "TORCH_",
    "TORCHDYNAMO_",
    "TORCHINDUCTOR_",
    "TRITON_",
    "VECLIB_",
    "XLA_",
)
"""Libraries of numerics, threads, accelerators and communication."""

_HOSTS = re.compile(
    r"_(?:ADDR(?:ESS)?|COMM_ID|ENDPOINT|HOSTS?|HOSTNAME)$|^TF_CONFIG$|_BACKEND_TARGET$"
)
"""Names whose values name machines: ``JAX_COORDINATOR_ADDRESS``, ``TF_CONFIG``."""

OTHERS = ("TF_CLI_", "TF_DATA_", "TF_LOG", "TF_TOKEN_", "TF_VAR_", "TF_WORKSPACE")
"""Variables of Terraform, which shares a prefix with TensorFlow and holds credentials."""

NAMES = frozenset(
    {
        "ACCELERATE_MIXED_PRECISION",
        "GLIBC_TUNABLES",
        "GOTO_NUM_THREADS",
        "GROUP_RANK",
        "LD_PRELOAD",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MALLOC_ARENA_MAX",
        "NVIDIA_TF32_OVERRIDE",
        "PL_GLOBAL_SEED",
        "PL_SEED_WORKERS",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONHASHSEED",
        "PYTHONNOUSERSITE",
        "PYTHONOPTIMIZE",
        "PYTHONSAFEPATH",
        "RANK",
        "ROCR_VISIBLE_DEVICES",
        "TOKENIZERS_PARALLELISM",
        "TORCHELASTIC_RESTART_COUNT",
        "USE_FLASH_ATTENTION",
        "WORLD_SIZE",
    }
)
"""Single variables: seeds of the interpreter, ranks, loaders."""

MAX_VALUE = 1024
"""Longest value that is kept, in characters."""


def collect_knobs(environ: Mapping[str, str], home: str = "") -> Collected:
    """Return the variables of the list that are set in *environ*, and how many others are."""
    kept: dict[str, str] = {}
    secret = 0
    for name in sorted(environ):
        if name not in NAMES and (not name.startswith(PREFIXES) or name.startswith(OTHERS)):
            continue
        if _HOSTS.search(name):
            continue
        value = environ[name]
        if is_secret(name, value):
            secret += 1
            continue
        value = redact_text(readable(value))
        if len(home) > 1:
            value = value.replace(home, "~")
        kept[name] = value[:MAX_VALUE]
    values: dict[str, object] = {"variables": kept, "others": len(environ) - len(kept)}
    if secret:
        values["leftOut"] = secret
    return Collected("ok", values)
