"""What a program has set inside itself: the text that :mod:`inside` runs to look.

It needs Python 3.8, imports no framework, and asks only what the program has loaded, by functions
that change nothing and draw nothing: a generator is told by the SHA-256 of its state. What a
version of a library does not have is left out.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

PREFIXES = tuple(
    """ATEN_ BLIS_ CUBLAS_ CUBLASLT_ CUDA_ CUDNN_ DNNL_ FLASH_ATTENTION_ GLOO_ GOMP_ HIP_ HSA_ JAX_
    KMP_ MIOPEN_ MKL_ NCCL_ NPY_ NUMBA_ NUMEXPR_ NVTE_ OMP_ ONEDNN_ OPENBLAS_ PYTORCH_ RCCL_
    ROCBLAS_ TF_ TORCH_ TORCHDYNAMO_ TORCHINDUCTOR_ TRITON_ VECLIB_ XLA_""".split()
)
"""Variables kept: those of numerical, threading, accelerator and communication libraries."""

NAMES = frozenset(
    """ACCELERATE_MIXED_PRECISION CAUSAL_CONV1D_DETERMINISTIC GLIBC_TUNABLES GOTO_NUM_THREADS
    GROUP_RANK LD_PRELOAD LOCAL_RANK LOCAL_WORLD_SIZE MALLOC_ARENA_MAX MAMBA_DETERMINISTIC
    NVIDIA_TF32_OVERRIDE PL_GLOBAL_SEED PL_SEED_WORKERS PRIMUS_DETERMINISTIC
    PYTHONDONTWRITEBYTECODE PYTHONHASHSEED PYTHONNOUSERSITE PYTHONOPTIMIZE PYTHONSAFEPATH RANK
    ROCR_VISIBLE_DEVICES TOKENIZERS_PARALLELISM TORCHELASTIC_RESTART_COUNT USE_FLASH_ATTENTION
    WORLD_SIZE""".split()
)
"""Other variables kept: interpreter seeds, ranks, loaders, switches of single libraries."""

MAX_TEXT = 256
"""Longest value, in characters."""

MAX_HASHED_BYTES = 2**30
"""Most bytes of weights that are hashed before the first step."""

_ASKED = {
    "torch": """are_deterministic_algorithms_enabled is_deterministic_algorithms_warn_only_enabled
        utils.deterministic.fill_uninitialized_memory get_float32_matmul_precision
        get_default_dtype get_num_threads get_num_interop_threads backends.cpu.get_cpu_capability
        backends.fp32_precision backends.cudnn.enabled backends.cudnn.benchmark
        backends.cudnn.deterministic backends.cudnn.conv.fp32_precision
        backends.cudnn.rnn.fp32_precision backends.cuda.matmul.fp32_precision
        backends.cuda.matmul.allow_fp16_reduced_precision_reduction
        backends.cuda.matmul.allow_bf16_reduced_precision_reduction
        backends.cuda.matmul.allow_fp16_accumulation backends.cuda.flash_sdp_enabled
        backends.cuda.mem_efficient_sdp_enabled backends.cuda.math_sdp_enabled
        backends.cuda.cudnn_sdp_enabled backends.mkldnn.enabled backends.mkldnn.deterministic
        backends.mkldnn.matmul.fp32_precision version.cuda version.hip initial_seed""",
    "keras": "config.backend config.floatx config.image_data_format",
    "tensorflow.python.framework.config": """is_op_determinism_enabled
        tensor_float_32_execution_enabled""",
}
"""Functions and values of a module, if it is loaded."""

_JAX = (
    "jax_default_matmul_precision jax_default_prng_impl jax_enable_x64 jax_threefry_partitionable"
)
_DISTRIBUTED = "get_backend get_rank get_world_size"


def values(optimizer: "Any" = None) -> "dict[str, Any]":  # noqa: ANN401 - torch is not imported
    """Return what is set, by dotted names; with *optimizer*, the digest of its weights too.

    Values are texts, numbers and truth values; empty if nothing is loaded that has a state.
    """
    found: dict[str, Any] = {}
    sources: list[Callable[[], Iterator[tuple[str, Any]]]] = [_settings, _generators, _distributed]
    if optimizer is not None:
        sources.append(lambda: _weights(optimizer))
    for source in sources:
        try:
            found.update(source())
        except Exception:  # noqa: BLE001, S112 - a library that answers otherwise
            continue
    kept = {name: _plain(value) for name, value in found.items() if value is not None}
    if kept:
        listed = (name for name in os.environ if name.startswith(PREFIXES) or name in NAMES)
        kept.update((f"environ.{name}", os.environ[name][:1024]) for name in listed)
    return kept


def _plain(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    return str(value)[:MAX_TEXT]


def _settings() -> "Iterator[tuple[str, Any]]":
    for module, names in _ASKED.items():
        if module in sys.modules:
            yield from _asked(sys.modules[module], module.partition(".")[0], names)
    if "jax" in sys.modules:
        yield from ((name, sys.modules["jax"].config.values.get(name)) for name in _JAX.split())


def _asked(module: "Any", prefix: str, names: str) -> "Iterator[tuple[str, Any]]":  # noqa: ANN401 - a module
    for name in names.split():
        value = module
        try:
            for part in name.split("."):
                value = getattr(value, part)
            value = value() if callable(value) else value
        except Exception:  # noqa: BLE001, S112 - not in this version
            continue
        yield f"{prefix}.{name}", value


def _generators() -> "Iterator[tuple[str, Any]]":
    """Yield digests of the states of global generators."""
    if "random" in sys.modules:
        state = sys.modules["random"].getstate()
        yield "random.state", _sha256(repr(state).encode())
    if "numpy.random" in sys.modules:
        kind, keys, *rest = sys.modules["numpy.random"].get_state()
        yield "numpy.random.state", _sha256(repr((kind, keys.tolist(), *rest)).encode())
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        yield "torch.rng", _sha256(bytes(torch.get_rng_state().tolist()))
        if torch.cuda.is_initialized():
            for number, state in enumerate(torch.cuda.get_rng_state_all()):
                yield f"torch.cuda.rng.{number}", _sha256(bytes(state.tolist()))


def _distributed() -> "Iterator[tuple[str, Any]]":
    torch: Any = sys.modules.get("torch.distributed")
    if torch is not None and torch.is_available() and torch.is_initialized():
        yield from _asked(torch, "torch.distributed", _DISTRIBUTED)


def _weights(optimizer: "Any") -> "Iterator[tuple[str, Any]]":  # noqa: ANN401 - torch's
    """Yield the digest of the weights that *optimizer* will change, in its order.

    It is the SHA-256 of type, shape and bytes of each. More than ``MAX_HASHED_BYTES`` have none.
    """
    import hashlib  # noqa: PLC0415 - not every program has it loaded

    torch = sys.modules["torch"]
    tensors = [each for group in optimizer.param_groups for each in group["params"]]
    elements = sum(each.numel() for each in tensors)
    yield "optimizer", type(optimizer).__qualname__
    yield "optimizer.parameters", elements
    if sum(each.numel() * each.element_size() for each in tensors) > MAX_HASHED_BYTES:
        return
    hasher = hashlib.sha256()
    for each in tensors:
        local = each.to_local() if hasattr(each, "to_local") else each  # its shard, of a DTensor
        flat = local.detach().cpu().contiguous().reshape(-1)
        hasher.update(f"{each.dtype}{tuple(each.shape)}".encode())
        hasher.update(flat.view(torch.uint8).numpy())
    yield "optimizer.initialWeights", hasher.hexdigest()


def _sha256(data: bytes) -> str:
    import hashlib  # noqa: PLC0415 - as above

    return hashlib.sha256(data).hexdigest()
