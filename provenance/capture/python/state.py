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
    """ATEN_ BLIS_ CAUSAL_CONV1D_ CCL_ CUBLAS_ CUBLASLT_ CUDA_ CUDNN_ DNNL_ FLASH_ATTENTION_ FSDP_
    GLOO_ GOMP_ HCCL_ HIP_ HSA_ JAX_ KERAS_ KMP_ MIOPEN_ MKL_ NCCL_ NPY_ NUMBA_ NUMEXPR_ NVTE_ OMP_
    ONEDNN_ OPENBLAS_ PYTORCH_ RCCL_ ROCBLAS_ SYCL_ TF_ TORCH_ TORCHDYNAMO_ TORCHINDUCTOR_ TRITON_
    UCC_ VECLIB_ XLA_""".split()
)
"""Variables kept: those of numerical, threading, accelerator and communication libraries."""

NAMES = frozenset(
    """ACCELERATE_MIXED_PRECISION GLIBC_TUNABLES GOTO_NUM_THREADS GROUP_RANK LD_PRELOAD
    LIBTPU_INIT_ARGS LOCAL_RANK LOCAL_WORLD_SIZE LOKY_MAX_CPU_COUNT MALLOC_ARENA_MAX
    MAMBA_DETERMINISTIC NVIDIA_TF32_OVERRIDE PL_GLOBAL_SEED PL_SEED_WORKERS PRIMUS_DETERMINISTIC
    PYTHONDONTWRITEBYTECODE PYTHONHASHSEED PYTHONNOUSERSITE PYTHONOPTIMIZE PYTHONSAFEPATH RANK
    ROCR_VISIBLE_DEVICES SCIPY_ARRAY_API TOKENIZERS_PARALLELISM TORCHELASTIC_RESTART_COUNT
    USE_FLASH_ATTENTION WORLD_SIZE""".split()
)
"""Other variables kept: interpreter seeds, ranks, loaders, switches of single libraries."""

MAX_TEXT, MAX_HASHED_BYTES, MAX_GROUPS = 4096, 2**30, 8
"""Most characters of a value, bytes of weights that are hashed before the first step, and groups of
parameters whose options are told."""

_ASKED = {
    "torch": """are_deterministic_algorithms_enabled is_deterministic_algorithms_warn_only_enabled
        utils.deterministic.fill_uninitialized_memory get_float32_matmul_precision
        get_default_dtype is_autocast_enabled get_num_threads get_num_interop_threads
        backends.cpu.get_cpu_capability backends.fp32_precision backends.cudnn.enabled
        backends.cudnn.benchmark backends.cudnn.deterministic backends.cudnn.fp32_precision
        backends.cudnn.conv.fp32_precision backends.cudnn.rnn.fp32_precision
        backends.cuda.matmul.fp32_precision
        backends.cuda.matmul.allow_fp16_reduced_precision_reduction
        backends.cuda.matmul.allow_bf16_reduced_precision_reduction
        backends.cuda.matmul.allow_fp16_accumulation backends.cuda.flash_sdp_enabled
        backends.cuda.mem_efficient_sdp_enabled backends.cuda.math_sdp_enabled
        backends.cuda.cudnn_sdp_enabled backends.cuda.fp16_bf16_reduction_math_sdp_allowed
        backends.cudnn.benchmark_limit backends.mkldnn.enabled backends.mkldnn.deterministic
        backends.mkldnn.fp32_precision backends.mkldnn.matmul.fp32_precision version.cuda
        version.hip initial_seed""",
    "keras": "config.backend config.dtype_policy config.floatx config.image_data_format",
    "tensorflow.python.framework.config": """is_op_determinism_enabled
        tensor_float_32_execution_enabled""",
}
"""Functions and values of a module, if it is loaded."""

_OF_CUDA = """backends.cuda.preferred_blas_library backends.cuda.preferred_linalg_library
    backends.cudnn.version cuda.nccl.version cuda.current_device cuda.get_device_name
    cuda.get_device_capability cuda.device_count"""
_OF_JAX = """allow_f16_reductions cpu_collectives_implementation default_matmul_precision
    default_prng_impl disable_jit enable_custom_prng enable_x64 exec_time_optimization_effort
    num_cpu_devices numpy_dtype_promotion optimization_level platforms random_seed_offset
    threefry_partitionable use_shardy_partitioner"""
_OF_DISTRIBUTED = "get_backend get_rank get_world_size"


def values(
    optimizer: "Any" = None,  # noqa: ANN401 - torch is not imported
    passes_on: "Callable[[BaseException], bool]" = lambda _: False,
) -> "dict[str, Any]":
    """Return what is set, by dotted names; with *optimizer*, the digest of its weights too.

    Values are texts, numbers and truth values; empty if nothing is loaded that has a state. One
    that cannot be told is its error's name, unless *passes_on* has the error raised: what a
    signal's handler raises is not ours.
    """
    found: dict[str, Any] = {}
    for name, ask, *arguments in _questions(optimizer, found):
        try:
            answer = ask(*arguments)
            answers = answer if isinstance(answer, dict) else {"": answer}
            for key, value in answers.items():
                if value is not None:
                    found[f"{name}.{key}" if key else name] = _plain(value)
        except (AttributeError, ImportError, KeyError):  # not in this version
            continue
        except BaseException as error:
            if passes_on(error):
                raise
            found[name] = f"error: {_plain(type(error).__name__)}"
    return found


def _questions(optimizer: "Any", found: "dict[str, Any]") -> "Iterator[tuple[Any, ...]]":  # noqa: ANN401 - torch's
    """Yield the name of each value, and what to call for it with what."""
    for module, names in _ASKED.items():
        for name in names.split():
            yield f"{module.partition('.')[0]}.{name}", _value, module, name
    for name in _OF_CUDA.split():
        yield f"torch.{name}", _of_cuda, name
    yield from _QUESTIONS.items()
    if optimizer is not None:
        yield "optimizer", _about, optimizer
        yield "optimizer.initialWeights", _weights, optimizer
    if found:
        yield "environ", _environ


def _plain(value: object) -> "Any":  # noqa: ANN401 - what JSON can hold
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return int(value)
    text = str(value)[:MAX_TEXT].replace("\0", "\\0")
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")[:MAX_TEXT]


def _loaded(module: str) -> "Any":  # noqa: ANN401 - a module
    """Return *module* if it is there and no object that would load or invent what it is asked."""
    found = sys.modules.get(module)
    if found.__class__ is not sys.__class__:
        raise ImportError(module)
    return found


def _value(module: str, path: str) -> "Any":  # noqa: ANN401 - whatever is there
    value = _loaded(module)
    for name in path.split("."):
        known = not isinstance(value, sys.__class__) or name in vars(value)
        if not known and not hasattr(type(value), name):  # nothing that __getattr__ would import
            raise AttributeError(name)
        value = getattr(value, name)
    return value() if callable(value) else value


def _numpy() -> str:
    state = _loaded("numpy.random").get_state(legacy=False)
    key = state["state"].get("key")
    if key is not None:
        state["state"]["key"] = key.tolist()
    return _sha256(repr(sorted(state.items())).encode())


def _cuda_states() -> "dict[str, str]":
    cuda = _loaded("torch").cuda
    states = cuda.get_rng_state_all() if cuda.is_initialized() else ()
    return {str(n): _sha256(bytes(state.tolist())) for n, state in enumerate(states)}


def _of_cuda(path: str) -> "Any":  # noqa: ANN401 - whatever is there
    """Return what would start CUDA if the program did not use it."""
    return _value("torch", path) if _loaded("torch").cuda.is_initialized() else None


def _distributed() -> "dict[str, Any]":
    group = _loaded("torch.distributed")
    if not (group.is_available() and group.is_initialized()):
        return {}
    return {name: getattr(group, name)() for name in _OF_DISTRIBUTED.split()}


def _jax() -> "dict[str, Any]":
    config = _loaded("jax").config
    return {f"jax_{n}": getattr(config, f"jax_{n}", None) for n in _OF_JAX.split()}


def _jax_devices() -> "dict[str, Any]":
    if not _loaded("jax._src.xla_bridge").backends_are_initialized():
        return {}
    names = "default_backend", "device_count", "process_count", "process_index"
    return {name: getattr(_loaded("jax"), name)() for name in names}


def _thread_pools() -> "dict[str, Any]":
    """Return what scikit-learn would: of each BLAS and OpenMP its threads, version and kernels."""
    pools = _loaded("threadpoolctl").threadpool_info()
    pools.sort(key=lambda pool: (pool["internal_api"], str(pool["version"])))
    return {
        f"{number}.{name}": pool.get(name)
        for number, pool in enumerate(pools[:MAX_GROUPS])
        for name in ("internal_api", "version", "num_threads", "threading_layer", "architecture")
    }


def _numpy_features() -> str:
    umath = sys.modules.get("numpy._core._multiarray_umath")
    features = (umath or _loaded("numpy.core._multiarray_umath")).__cpu_features__
    return " ".join(sorted(name for name in features if features[name]))


def _tensorflow() -> "dict[str, Any]":
    context = vars(_loaded("tensorflow.python.eager.context"))["_context"]  # not one that is made
    names = "seed", "intra_op_parallelism_threads", "inter_op_parallelism_threads"
    return {name: getattr(context, f"_{name}", None) for name in names}


def _environ() -> "dict[str, str]":
    listed = (name for name in os.environ if name.startswith(PREFIXES) or name in NAMES)
    return {name: os.environ[name] for name in listed if name.isidentifier() and name.isascii()}


def _about(optimizer: "Any") -> "dict[str, Any]":  # noqa: ANN401 - torch's
    """Return what *optimizer* is and is set to, and of how many tensors it knows a past."""
    groups = optimizer.param_groups
    about = {
        "": type(optimizer).__qualname__,
        "parameters": sum(each.numel() for group in groups for each in group["params"]),
        "groups": len(groups),
        "state": len(getattr(optimizer, "state", ())),
    }
    for number, group in enumerate(groups[:MAX_GROUPS]):
        for name, value in group.items():
            if isinstance(value, (bool, int, float, str, tuple)) and name.isidentifier():
                about[f"{number}.{name}"] = value
    return about


def _weights(optimizer: "Any") -> str:  # noqa: ANN401 - torch's
    """Return the digest of the weights that *optimizer* will change, in its order.

    It is that of :func:`provenance.capture.run.Run.initial_weights` of a list of them.
    """
    import hashlib  # noqa: PLC0415 - not every program has it loaded
    import json  # noqa: PLC0415 - as above

    torch = _loaded("torch")
    tensors = [each for group in optimizer.param_groups for each in group["params"]]
    if sum(each.numel() * each.element_size() for each in tensors) > MAX_HASHED_BYTES:
        return f"absent: more than {MAX_HASHED_BYTES} bytes"
    hasher = hashlib.sha256()
    for name in sorted(map(str, range(len(tensors)))):
        each = tensors[int(name)]
        local = each.to_local() if hasattr(each, "to_local") else each  # its shard, of a DTensor
        flat = local.detach().cpu().contiguous().reshape(-1)
        about = [name, str(each.dtype).rpartition(".")[2], list(each.shape)]
        hasher.update((json.dumps(about, separators=(",", ":")) + "\n").encode())
        hasher.update(flat.view(torch.uint8).numpy())
    return hasher.hexdigest()


def _sha256(data: bytes) -> str:
    import hashlib  # noqa: PLC0415 - as above

    return hashlib.sha256(data).hexdigest()


_QUESTIONS: "dict[str, Callable[[], Any]]" = {
    "random.state": lambda: _sha256(repr(_loaded("random").getstate()).encode()),
    "numpy.random.state": _numpy,
    "numpy.cpu_features": _numpy_features,
    "threadpoolctl": _thread_pools,
    "torch.rng": lambda: _sha256(bytes(_loaded("torch").get_rng_state().tolist())),
    "torch.cuda.rng": _cuda_states,
    "torch.distributed": _distributed,
    "jax.config": _jax,
    "jax": _jax_devices,
    "tensorflow": _tensorflow,
    "keras.global_random_seed": lambda: _loaded(
        "keras.src.backend.common.global_state"
    ).get_global_attribute("global_random_seed"),
    "multiprocessing.start_method": lambda: _loaded("multiprocessing").get_start_method(
        allow_none=True
    ),
    "multiprocessing.children": lambda: len(
        _loaded("multiprocessing.process")._children  # noqa: SLF001 - to list them waits for them
    ),
}
