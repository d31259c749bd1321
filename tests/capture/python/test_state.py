"""What a program has set inside itself is told, whatever the program is, and costs it nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provenance.capture.python import state
from provenance.capture.run import RECORDS
from tests.capture.python.scene import states

if TYPE_CHECKING:
    from tests.capture.python.scene import Scene

FAKE_TORCH = """
import os, types
hooks, asked = [], []

def register_optimizer_step_pre_hook(hook):
    hooks.append(hook)

class compiler:
    compiling = False
    is_compiling = staticmethod(lambda: compiler.compiling)

class cuda:
    capturing = False
    is_initialized = staticmethod(lambda: True)
    is_current_stream_capturing = staticmethod(lambda: cuda.capturing)

def initial_seed():
    asked.append("seed")
    return 2**64 - 1

def get_num_threads():
    raise KeyError("asked too early")

are_deterministic_algorithms_enabled = lambda: True
version = types.SimpleNamespace(cuda=None)

class Optimizer:
    param_groups = []
    def step(self):
        for hook in hooks:
            assert hook(self, (), {}) is None

import torch.optim.optimizer
"""


def with_fake_torch(scene: Scene) -> str:
    """Put a torch where the program finds it, and return the path for that."""
    at = scene.root / "path"
    at.joinpath("torch/optim").mkdir(parents=True)
    at.joinpath("torch/__init__.py").write_text(FAKE_TORCH)
    at.joinpath("torch/optim/__init__.py").touch()
    text = "import torch\nfrom torch import register_optimizer_step_pre_hook\n"
    at.joinpath("torch/optim/optimizer.py").write_text(text)
    return os.pathsep.join([scene.environ["PYTHONPATH"], str(at)])


def test_what_a_program_has_set_is_told_when_it_exits(scene: Scene) -> None:
    program = """
        import os, random
        random.seed(7)
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        os.environ["OTHER"] = os.environ.pop("OMP_NUM_THREADS")
        raise SystemExit(3)
    """
    for _ in range(2):
        assert scene.run(program, OMP_NUM_THREADS="2").returncode == 3
    scene.run("import random; random.seed(8)")
    (name, first), again, (_, other) = states(scene)
    assert (name, first) == again
    assert name == "exit"
    assert first["environ.CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not {"environ.OMP_NUM_THREADS", "environ.OTHER", "environ.HOME"} & first.keys()
    assert first["random.state"] != other["random.state"]
    assert (scene.said().damaged, scene.said().reads.lost) == (0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux lists what is mapped")
def test_each_native_library_is_told_once(scene: Scene) -> None:
    program = """
        import _ctypes
        print(_ctypes.__file__)
    """
    extension = scene.run(program).stdout.strip()
    (process,) = scene.said().processes
    assert os.path.realpath(extension) in process.libraries
    assert any(re.search(r"/libc[.-][^/]*$", path) for path in process.libraries)
    text = scene.root.joinpath("run", RECORDS).read_text()
    assert text.count(json.dumps(os.path.realpath(extension))) == 1


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import sys; sys.modules.pop('random', None)", 0),  # nothing loaded that has a state
        ("import random, os; os._exit(0)", 0),
        ("import random; 1 / 0", 1),
        ("import random, os; os.fork() or random.seed(1)", 2),
        ("import random, sys; sys.modules['random'] = None", 0),
        ("import random; random.getstate = 1", 1),
        ("import random; random.getstate = exit", 1),
        ("import random, sys; sys.modules['random'] = random.Random()", 0),
        ("import random, os; os.environ = None", 1),
        ("import os, random; os.environb[b'OMP_X'] = b'\\xff' * 9999", 1),
        ("import random; random.getstate = lambda: open('a.py').close() or 'x' * 9**7", 1),
    ],
)
def test_a_state_costs_no_program_its_end(scene: Scene, program: str, told: int) -> None:
    done = scene.run(program)
    assert [name for name, _ in states(scene)] == ["exit"] * told
    assert ("provenance" in done.stderr, "1 / 0" in program) == (False, done.returncode == 1)
    assert scene.said().reads.files.keys() <= {scene.root / "script.py", scene.watched / "a.py"}
    assert (scene.said().damaged, scene.said().reads.lost) == (0, 0)


def test_what_is_set_at_the_first_step_is_told_once(scene: Scene) -> None:
    """By the hook that torch offers, which does nothing while a compiler looks at it."""
    program = """
        import os, torch, email.parser
        for busy, what in (torch.compiler, "compiling"), (torch.cuda, "capturing"):
            setattr(busy, what, True)
            torch.Optimizer().step()
            assert torch.asked == [], torch.asked
            setattr(busy, what, False)
        is_compiling = torch.compiler.__dict__["is_compiling"]
        del torch.compiler.is_compiling  # before 2.1
        torch.Optimizer().step()
        torch.compiler.is_compiling = is_compiling
        os.environ["MKL_CBWR"] = "AVX2"
        for _ in range(3):
            torch.Optimizer().step()
        assert torch.asked == ["seed"], torch.asked
        torch.are_deterministic_algorithms_enabled = lambda: False
        assert len(torch.hooks) == 1
    """
    done = scene.run(program, PYTHONPATH=with_fake_torch(scene))
    assert (done.returncode, done.stderr) == (0, "")
    (one, at_step), (two, at_exit) = states(scene)
    assert (one, two) == ("step", "exit")
    name = "torch.are_deterministic_algorithms_enabled"
    assert (at_step[name], at_exit[name]) == (True, False)
    assert at_step["torch.initial_seed"] == str(2**64 - 1)
    assert (at_step["optimizer"], at_step["optimizer.parameters"]) == ("Optimizer", 0)
    assert at_exit["environ.MKL_CBWR"] == "AVX2"
    assert "torch.get_num_threads" not in at_step


STRANGE = {
    "a number that is none": """
        class Number(int):
            __str__ = __repr__ = lambda self: "{"
        torch.get_num_threads = lambda: Number(3)
    """,
    "a text that raises": """
        class Text:
            def __str__(self): raise SystemExit("not ours")
        torch.get_num_threads = Text
    """,
    "a truth that raises": """
        class Odd:
            def __bool__(self): raise ValueError
            def __eq__(self, other): raise ValueError
        torch.get_num_threads = torch.cuda.is_initialized = Odd
    """,
    "an exit": "torch.get_num_threads = lambda: sys.exit(7)",
    "a compiler that raises": """
        def refuse(): raise KeyError
        torch.compiler = types.SimpleNamespace(is_compiling=refuse)
    """,
    "an endless recursion": """
        def deeper(): return deeper()
        torch.get_num_threads = deeper
    """,
    "long and binary texts": r"torch.get_num_threads = lambda: '\udcff\0\"\\' * 9**6",
    "an optimizer of nothing": "torch.Optimizer.param_groups = property(lambda self: 1 / 0)",
    "weights without bytes": """
        class Weights:
            dtype = shape = None
            def numel(self): return 2**80
            def element_size(self): return 1
        torch.Optimizer.param_groups = [{"params": [Weights()], "lr": 1e-3, "betas": (1, 2)}] * 99
    """,
    "no modules": "sys.modules.update(dict.fromkeys(('torch', 'random', 'multiprocessing')))",
    "long variables": "os.environ.update((f'NCCL_{n}', 'é' * 9999) for n in range(99))",
    "strange variables": r"os.environ['OMP_\udcff'] = os.environ['OMP_a\nb'] = '\udcff\x1b[0m'",
    "a path that raises": "sys.path.append(None); sys.meta_path.insert(0, None)",
    "many threads": """
        import threading
        threads = [threading.Thread(target=torch.Optimizer().step) for _ in range(50)]
        for each in threads: each.start()
        for each in threads: each.join()
    """,
    "many optimizers": "for _ in range(9999): torch.Optimizer().step()",
    "a fork between steps": """
        for _ in range(2): os.fork() or (torch.Optimizer().step(), os._exit(0))
        os.wait(), os.wait()
    """,
    "threads that never end": """
        import threading, time
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    """,
}
"""What is done before the first step, after which the program must go on as without us."""


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE)
def test_no_strange_program_notices(scene: Scene, strange: str) -> None:
    program = textwrap.dedent("""
        import os, sys, random, types, torch, email.parser
        {}
        modules = set(sys.modules)
        optimizer = torch.Optimizer()
        optimizer.step(); optimizer.step()
        loaded = {{name.split(".")[0].strip("_") for name in set(sys.modules) - modules}}
        print("went on", loaded - {{"hashlib", "blake2", "sha3", "json"}})
    """).format(textwrap.dedent(strange))
    done = scene.run(program, PYTHONPATH=with_fake_torch(scene))
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on set()\n", "")
    assert scene.said().damaged == 0


def test_a_module_that_loads_when_it_is_asked_is_not_asked(scene: Scene) -> None:
    program = """
        import sys, types, importlib.util
        class Lazy(types.ModuleType):
            def __getattr__(self, name): print("asked for", name)
        for name in ("torch", "torch.optim.optimizer", "keras", "jax", "random", "numpy.random"):
            sys.modules[name] = Lazy(name)
        spec = importlib.util.find_spec("wave")
        spec.loader = importlib.util.LazyLoader(spec.loader)
        sys.modules["torch.distributed"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        plain = sys.modules["tensorflow.python.framework.config"] = types.ModuleType("plain")
        plain.__getattr__ = lambda name: print("asked for", name)
        import email.parser
        print("wave" in sys.modules)
    """
    done = scene.run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


def test_a_hook_that_cannot_be_had_costs_no_import(scene: Scene) -> None:
    program = """
        import sys, types
        strange = sys.modules["torch.optim.optimizer"] = types.ModuleType("strange")
        strange.register_optimizer_step_pre_hook = lambda hook: 1 / 0
        import email.parser, wave
        print("imported")
    """
    done = scene.run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "imported\n", "")
    assert scene.said().reads.lost == 1


INTERRUPTIONS = {
    "a handler": "def ring(number, frame):",
    "a handler of any arguments": "def ring(*given):",
    "Python's own": "ring, Rung = signal.default_int_handler, KeyboardInterrupt\nif 0:",
}


@pytest.mark.parametrize("how", INTERRUPTIONS.values(), ids=INTERRUPTIONS)
def test_what_a_signal_raises_while_it_looks_arrives(scene: Scene, how: str) -> None:
    program = """
        import random, signal, sys, time, torch, email.parser
        class Rung(BaseException): pass
        {}
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            raise Rung
        signal.signal(signal.SIGALRM, ring)
        torch.get_num_threads = lambda: time.sleep(60)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            torch.Optimizer().step()
        except Rung:
            print("rung")
        torch.get_num_threads = int
    """
    program = textwrap.dedent(program).format(how)
    done = scene.run(program, PYTHONPATH=with_fake_torch(scene))
    assert (done.returncode, done.stdout, done.stderr) == (0, "rung\n", "")


# --- A real torch ---------------------------------------------------------------------------------

needs_torch = pytest.mark.skipif(
    not os.environ.get("PROVENANCE_TORCH"), reason="PROVENANCE_TORCH names no Python with torch"
)

TRAIN = """
import hashlib, threading, torch, warnings
torch.manual_seed(0); torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
layers = torch.nn.Linear(16, 32), torch.nn.Dropout(), torch.nn.Linear(32, 1)
model = torch.nn.Sequential(*layers)
optimizer = torch.optim.Adam(model.parameters())
counts = []
def backward():
    optimizer.zero_grad()
    loss = model(torch.randn(64, 16)).pow(2).sum()
    loss.backward()
    return loss
def step():
    backward(); optimizer.step()
{}
for _ in range(9):
    step()
    open("a.py").close()
data = b"".join(bytes(p.detach().view(torch.uint8).flatten().tolist()) for p in model.parameters())
print(hashlib.sha256(data).hexdigest(), *counts)
"""

KINDS = {
    "settings": """
warnings.simplefilter("error")
torch.backends.cuda.matmul.allow_tf32 = True; torch.backends.cudnn.allow_tf32 = False
torch.backends.fp32_precision = "ieee"
torch.set_default_device("cpu")
threads = iter([4])
def step():
    backward(); optimizer.step()
    for count in threads: torch.set_num_interop_threads(count)  # refused once work has begun
""",
    "a closure, and a mode that sees each function": """
from torch.overrides import TorchFunctionMode
class Mode(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))
mode = Mode().__enter__()
optimizer = torch.optim.LBFGS(model.parameters())
step = lambda: optimizer.step(backward)
""",
    "a compiled step, and others in threads": """
from torch._dynamo.utils import counters
counts = [counters["graph_break"]]
optimize = torch.compile(lambda: optimizer.step(), backend="eager")
def step():
    backward(); optimize()
step(); step()
models = [torch.nn.Linear(3, 3) for _ in range(8)]
optimizers = [torch.optim.SGD(each.parameters(), 0.1) for each in models]
threads = [threading.Thread(target=each.step) for each in optimizers]
for each in threads: each.start()
for each in threads: each.join()
""",
    "a training compiled as a whole": """
step = torch.compile(step, backend="eager")  # as a whole
""",
}


@pytest.mark.integration
@needs_torch
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_no_training_with_torch_notices(scene: Scene, kind: str) -> None:
    """Neither do its bits, nor what it compiles, nor what it says."""
    paths = scene.environ["PYTHONPATH"], ""
    python = os.environ["PROVENANCE_TORCH"]
    first, second = (
        scene.run(TRAIN.replace("{}", kind, 1), python=python, PYTHONPATH=path, TORCH_LOGS="-all")
        for path in paths
    )
    assert (first.returncode, first.stdout) == (0, second.stdout)
    assert first.stderr.splitlines()[1:] == second.stderr.splitlines()[1:]
    assert len(first.stdout.split()[0]) == 64
    assert scene.watched / "a.py" in scene.said().reads.files
    told = states(scene)
    for _, values in told:
        assert values["torch.are_deterministic_algorithms_enabled"] is True
        assert (values["torch.get_num_threads"], values["torch.initial_seed"]) == (1, 0)
    if "as a whole" not in kind:
        (one, at_step), (two, at_exit) = told
        assert (one, two) == ("step", "exit")
        optimizer = next((name for name in ("LBFGS", "SGD") if name in kind), "Adam")
        assert at_step["optimizer"] == optimizer
        assert at_step["optimizer.parameters"] == (12 if optimizer == "SGD" else 577)
        assert at_step["torch.rng"] != at_exit["torch.rng"]
        assert len(str(at_step["optimizer.initialWeights"])) == 64
    assert (scene.said().damaged, scene.said().reads.lost) == (0, 0)


WEIGHTS = """
import sys, torch, state
lazy = torch.nn.LazyLinear(3).weight
for weights in [
    torch.eye(3), torch.eye(3).bfloat16(), torch.eye(3).to(torch.float8_e4m3fn).requires_grad_(),
    torch.tensor(True), torch.empty(0), torch.tensor(1.0),
    torch.empty(9, device="meta"), torch.eye(3).to_sparse(),
    torch.eye(3, dtype=torch.cfloat).conj(), torch.zeros(1).expand(2**31), lazy,
]:
    if not isinstance(weights, torch.nn.Parameter):
        weights = torch.nn.Parameter(weights, requires_grad=False)
    told = state.values(torch.optim.SGD([weights], 0.5))
    print(told["optimizer.initialWeights"], told.get("optimizer.0.lr", told["optimizer"]))
"""


@pytest.mark.integration
@needs_torch
def test_weights_of_every_kind_have_a_digest_or_a_reason(tmp_path: Path) -> None:
    environ = {"PYTHONPATH": str(Path(state.__file__).parent), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [os.environ["PROVENANCE_TORCH"], "-c", WEIGHTS],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    digests, others = done.stdout.splitlines()[:6], done.stdout.splitlines()[6:]
    assert len({line.removesuffix(" 0.5") for line in digests}) == 6
    assert {len(line) for line in digests} == {64 + len(" 0.5")}
    assert others == [
        "error: NotImplementedError 0.5",
        "error: RuntimeError 0.5",
        "error: RuntimeError 0.5",
        "absent: more than 1073741824 bytes 0.5",
        "error: ValueError error: ValueError",
    ]


@pytest.mark.integration
@needs_torch
def test_the_digest_of_weights_is_the_one_that_the_program_takes(scene: Scene) -> None:
    program = f"""
        import sys, torch
        sys.path.insert(0, {str(Path(__file__).parents[3])!r})
        from provenance.capture.run import _of_tensors
        weights = [torch.nn.Parameter(torch.randn(2, 3).to(kind)) for kind in
                   [torch.float32, torch.bfloat16] * 6]
        optimizer = torch.optim.SGD([{{"params": weights[:5]}}, {{"params": weights[5:]}}], 0.1)
        sum(each.float().sum() for each in weights).backward()
        print(_of_tensors(weights)[0])
        optimizer.step()
    """
    done = scene.run(program, python=os.environ["PROVENANCE_TORCH"])
    [(_, at_step)] = [each for each in states(scene) if each[0] == "step"]
    assert at_step["optimizer.initialWeights"] == done.stdout.strip()
