"""The program with which every Python of a run starts: it tells what it is and what it opens.

:mod:`provenance.capture.python.startup` copies this text into the run's folder. It needs Python
3.8 and imports only what each start has loaded already; ``__future__`` is not, hence the quotes.
Its records are lines, as of :mod:`provenance.capture.run`, and all are the word of a program that
nobody trusts::

    {"process":{"pid":7,"parent":5,"forked":false,"executable":"/v/bin/python", …}}
    {"read":"/r/a.py","size":9,"mtimeNs":1,"ctimeNs":2,"pid":7}
    {"wrote":"/r/out.txt","pid":7}
    {"started":"/usr/bin/bash","words":["python3"],"pid":7}
    {"state":"exit","values":{"torch.get_num_threads":1, …},"pid":7}
    {"ended":true,"pid":7}
    {"libraries":["/lib/libc.so.6", …],"pid":7}
    {"lost":1,"pid":7}

Told are reads below the watched folders, what was imported from anywhere but the environment, and
what is opened in the model's folder: a run may go on from what lay there.

``parent`` is the nearest Python above that spoke, by the variable :data:`PARENT`. A ``read`` is the
file's state just before it is first opened. Every write below the model's folder is one record that
names that folder. Of a started program only those ``words`` are kept that name a Python, a launcher
or a script of a shell. ``state`` is what :mod:`~provenance.capture.python.state` finds set in the
process: before torch's first optimizer step (``step``, by a hook that torch offers) and when Python
exits; ``libraries`` are the native ones that it has mapped by then. Of a process that a launcher
made one of several (:data:`LAUNCHED`) it is told that Python ``ended``. ``lost`` is told at 1, 2,
4, … losses: a process may end without a word.

One audit hook sees all. It never raises, holds no lock (a child may be forked while another thread
is in here), opens nothing but the records, and passes on what a signal's handler raises in it.
"""

import atexit
import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

PARENT = "PROVENANCE_PARENT_"
"""The environment variable by which a Python tells those that it starts who it is.

The run's folder follows in the name: a run may be recorded inside a recorded one.
"""

MAX_LINE_BYTES = 32768
"""Longest record: a path of 4,096 bytes, each of which takes six in JSON, fits."""

MAX_FILES, MAX_STARTED = 4096, 1024
"""Most files of each kind (read, written), and started programs, that one process tells."""

SHELLS = frozenset("ash bash busybox dash fish ksh mksh sh zsh".split())
LAUNCHERS = SHELLS.union(
    "make gmake env nice timeout taskset nohup stdbuf setsid ionice chrt sudo su doas time xargs "
    "parallel chroot unshare nsenter numactl docker podman nerdctl apptainer singularity ssh srun "
    "sbatch mpirun mpiexec conda mamba micromamba uv uvx pipx poetry pdm hatch pixi nix".split()
)
"""Programs that start others: among their words may be a Python."""

LAUNCHED = frozenset(
    """GROUP_RANK LOCAL_RANK MV2_COMM_WORLD_LOCAL_RANK MV2_COMM_WORLD_RANK MV2_COMM_WORLD_SIZE
    OMPI_COMM_WORLD_LOCAL_RANK OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE PMI_RANK PMI_SIZE RANK
    SLURM_LOCALID SLURM_NODEID SLURM_PROCID SLURM_RESTART_COUNT SLURM_STEP_NUM_TASKS
    TORCHELASTIC_RESTART_COUNT WORLD_SIZE""".split()
)
"""Variables by which launchers tell a process which of several it is: numbers."""

_open, _write, _close, _getpid = os.open, os.write, os.close, os.getpid
"""As they are before the program can put others in their place."""

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_MAX_FOLDERS = 4096
_MAX_MAPS_BYTES = 2**23
_SEPARATORS = str.maketrans(dict.fromkeys("\"'`;&|()<>=${}", " "))
_CODE = (".py", ".pyc")
_OUTSIDE, SKIPPED, _WATCHED, _MODEL = range(4)


class Watch:
    """What this process has told. One object for each process, which a fork inherits."""

    max_files = MAX_FILES
    everywhere = False

    def __init__(
        self,
        records: str,
        folders: "Sequence[Sequence[str]]",
        state: "Any",  # noqa: ANN401 - of importlib, which is not imported
    ) -> None:
        """Tell in *records* of *folders*: those watched, those left out, and the models.

        *state* loads the program that looks at what is set.
        """
        watched, left_out, models = folders
        self.records, self.model, self.state = records, models[0], state
        self.variable = PARENT + "".join(filter(str.isalnum, records))
        self.pid, self.parent = _getpid(), os.environ.get(self.variable, "")
        self.forked = False
        self.lost = self.told_lost = self.starts = 0
        self.steps_watched = False
        self.read_files: set[str] = set()
        self.written_files: set[str] = set()
        self.programs: set[str] = set()
        self.libraries: set[str] = set()
        self.folders: dict[str, int] = {}
        self.kinds = _kinds(watched, left_out, models)
        self.kinds[os.path.realpath(records.rpartition("/")[0])] = SKIPPED
        self.handlers: dict[str, Callable[[Sequence[Any]], None]] = {
            "open": self.opened,
            "import": self.imported,
            "ctypes.dlopen": self.read_named,
            "sqlite3.connect": self.connected,
            **dict.fromkeys(("os.rename", "os.link", "os.symlink"), lambda it: self.wrote(it[1])),
            "subprocess.Popen": lambda it: self.started(*it[:4]),
            "os.posix_spawn": self.spawned,
            "os.exec": lambda it: self.started(it[0], it[1], None, it[2]),
            "os.system": lambda it: self.started("/bin/sh", ["sh", "-c", it[0]], None, None),
        }

    def hook(self) -> "Callable[[str, Sequence[Any]], None]":
        """Return what takes audit events (PEP 578). A function costs half of what a method does."""
        handler_of, lose = self.handlers.get, self.lose

        def take(event: str, arguments: "Sequence[Any]") -> None:
            handler = handler_of(event)
            if handler is not None:
                try:
                    handler(arguments)
                except RecursionError:  # nothing can be called: it is told later
                    self.lost += 1
                except Exception as error:
                    if _is_of_signal(error):
                        raise
                    lose()

        return take

    # Records.

    def introduce(self) -> bool:
        """Tell what this process is, and whether that could be told."""
        parent = self.parent if self.parent.isdigit() and len(self.parent) < 10 else "0"  # noqa: PLR2004
        said = {
            "pid": self.pid,
            "parent": int(parent),
            "forked": self.forked,
            "executable": sys.executable or "",
            "prefix": sys.prefix,
            "basePrefix": sys.base_prefix,
            "version": sys.version,
            "implementation": sys.implementation.name,
            "cacheTag": sys.implementation.cache_tag or "",
            "pointerBits": 64 if sys.maxsize > 2**32 else 32,
            "optimize": int(sys.flags.optimize),
            "hashRandomization": bool(sys.flags.hash_randomization),
        }
        paths, launched = ",".join(map(_quoted, _searched())), _fields(self.launched())
        lists = f'"path":[{paths}],"launched":{{{launched}}}'
        return self.append(f'{{"process":{{{_fields(said)},{lists}}}}}')

    def launched(self) -> "dict[str, str]":
        """Return the variables of a launcher, if one made this process one of several."""
        found = {name: os.environ[name] for name in LAUNCHED if name in os.environ}
        return {name: text for name, text in found.items() if text.isdigit() and len(text) < 8}  # noqa: PLR2004

    def tell(self, fields: str) -> None:
        """Append a record with *fields* and this process."""
        pid = _getpid()
        if pid != self.pid:
            self.parent, self.pid, self.forked = str(self.pid), pid, True
            self.lost = self.told_lost = 0
            self.introduce()
        if not self.append(f'{{{fields},"pid":{self.pid}}}'):
            self.lose()

    def lose(self, number: int = 1) -> None:
        """Count what was not told, and tell it now and then."""
        self.lost += number
        if self.lost >= max(2 * self.told_lost, 1) and self.append(
            f'{{"lost":{self.lost - self.told_lost},"pid":{self.pid}}}'
        ):
            self.told_lost = self.lost

    def append(self, record: str) -> bool:
        """Write *record* and tell whether all of it was written."""
        try:
            data = f"\n{record}\n".encode()
            if len(data) > MAX_LINE_BYTES:
                return False
            descriptor = _open(self.records, _FLAGS)
            try:
                return _write(descriptor, data) == len(data)
            finally:
                _close(descriptor)
        except BaseException as error:  # another audit hook may raise anything
            if _is_of_signal(error):
                raise
            return False

    # Files.

    def opened(self, arguments: "Sequence[Any]") -> None:
        """Take ``open``: of ``open()``, of ``os.open`` (no mode), of C's ``fopen`` (no flags)."""
        path, mode, flags = arguments[:3]
        if path.__class__ is int or (path.__class__ is str and path == self.records):
            return
        if flags == 0 and mode.__class__ is str:
            reads, writes = "r" in mode or "+" in mode, "r" not in mode or "+" in mode
        else:
            access = flags & (os.O_WRONLY | os.O_RDWR)
            reads = access != os.O_WRONLY and not flags & os.O_TRUNC
            writes = access != os.O_RDONLY or bool(flags & os.O_TRUNC)
        if flags & os.O_CREAT and flags & os.O_EXCL and os.path.lexists(path):
            return  # it fails
        known = not reads or self.read(path)
        if writes and (os.access(path, os.W_OK) or not os.path.lexists(path)):
            self.wrote(path)
        if not known and mode is None and not os.fsdecode(path).startswith("/"):
            # Perhaps below a dir_fd, of which no event tells. shutil opens folders in that way.
            caller = sys._getframe(2).f_globals  # noqa: SLF001 - 0 is here, 1 the hook
            if caller.get("__name__") != "shutil":
                self.lose()

    def imported(self, arguments: "Sequence[Any]") -> None:
        """Take ``import``, which names the file of an extension module."""
        if arguments[1] is not None:
            self.read(arguments[1], imported=True)
        if not self.steps_watched:
            optimizers = sys.modules.get("torch.optim.optimizer")
            if optimizers.__class__ is sys.__class__:  # not one that loads lazily
                register = optimizers.__dict__.get("register_optimizer_step_pre_hook")
                if register is not None:
                    self.steps_watched = True
                    register(self.before_step(optimizers.__dict__))

    def read_named(self, arguments: "Sequence[Any]") -> None:
        """Take the event of a file that another library opens."""
        if arguments[0].__class__ is str and "/" in arguments[0]:
            self.read(arguments[0])

    def connected(self, arguments: "Sequence[Any]") -> None:
        """Take the event of a database, which its library reads and writes."""
        name = arguments[0]
        if name.__class__ is str and name and name[0] != ":" and not name.startswith("file:"):
            self.read(name)
            self.wrote(name)

    def located(self, path: "Any") -> "tuple[str, int]":  # noqa: ANN401 - a path of any kind
        """Return *path* with the links of its folder resolved, and of which kind it is."""
        if path.__class__ is not str:
            path = os.fsdecode(path)
        if not path.startswith("/"):
            path = f"{os.getcwd()}/{path}"  # noqa: PTH109 - pathlib costs 10 ms
        folder, _, name = path.rpartition("/")
        kind = self.folders.get(folder)
        if kind is None:
            real = os.path.realpath(folder or "/").rstrip("/")
            kind = self.kind(real)
            if real != folder:  # through a link, which may lead elsewhere next time
                return f"{real}/{name}", kind
            if len(self.folders) >= _MAX_FOLDERS:
                self.folders.clear()
            self.folders[folder] = kind
        return path, kind

    def kind(self, folder: str) -> int:
        """Return the kind of the innermost known folder that holds the real path *folder*."""
        while folder:
            kind = self.kinds.get(folder)
            if kind is not None:
                return kind
            folder, _, name = folder.rpartition("/")
            if name == ".git":
                return _OUTSIDE
        return _OUTSIDE

    def tells(self, path: str, kind: int, *, imported: bool) -> bool:
        """Tell whether a read of *path*, of this *kind*, is told: elsewhere only of code."""
        if kind == _OUTSIDE and not self.everywhere:
            return imported or path.endswith(_CODE) or path in sys.path  # an archive
        return kind != SKIPPED

    def read(self, path: "Any", *, imported: bool = False) -> bool:  # noqa: ANN401 - a path of any kind
        """Tell that *path* is read, and return whether there is something."""
        path, kind = self.located(path)
        if kind == SKIPPED or path in self.read_files:
            return True
        try:
            status = file = os.lstat(path)
            if not os.access(path, os.R_OK):
                return True  # it fails
            if stat.S_ISLNK(status.st_mode):
                file = os.stat(path)  # noqa: PTH116 - pathlib costs 10 ms
                target = os.path.realpath(path)
                if self.tells(target, self.kind(target.rpartition("/")[0]), imported=imported):
                    self.tell_read(target, file)
        except OSError as error:
            if _is_of_signal(error):  # TimeoutError is one
                raise
            return False
        if stat.S_ISREG(file.st_mode) and self.tells(path, kind, imported=imported):
            self.tell_read(path, status)
            folder, _, name = path.rpartition("/")
            if name.endswith(".pyc") and folder.endswith("/__pycache__"):
                # Python compared it with its source, by the source's size and time.
                self.read(f"{folder[:-12]}/{name.partition('.')[0]}.py")
        return True

    def tell_read(self, path: str, status: os.stat_result) -> None:
        """Tell of the file or link *path* once."""
        if path in self.read_files or self.kinds.get(path) == SKIPPED:
            return
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
            return
        if len(self.read_files) >= self.max_files:
            self.lose()
            return
        self.read_files.add(path)
        self.tell(
            f'"read":{_quoted(path)},"size":{status.st_size},'
            f'"mtimeNs":{status.st_mtime_ns},"ctimeNs":{status.st_ctime_ns}'
        )

    def wrote(self, path: "Any") -> None:  # noqa: ANN401 - a path of any kind
        """Tell once that *path* is written."""
        path, kind = self.located(path)
        if kind in (_WATCHED, _OUTSIDE) and os.path.islink(path):  # noqa: PTH114 - as above
            path = os.path.realpath(path)
            kind = self.kind(path.rpartition("/")[0])
        if kind == _MODEL:
            path = self.model
        elif kind == SKIPPED or (kind == _OUTSIDE and not self.everywhere):
            return
        if path in self.written_files:
            return
        if len(self.written_files) >= self.max_files:
            self.lose()
            return
        self.written_files.add(path)
        self.tell(f'"wrote":{_quoted(path)}')

    # What is set in the process.

    def before_step(self, optimizers: "Mapping[str, Any]") -> "Callable[..., None]":
        """Return what torch calls before every step of an optimizer: it tells the state, once.

        *optimizers* are the names in torch's module. A compiler that follows the program into it
        finds nothing to do, and while a graph of CUDA is captured nothing is copied, which would
        end the capture.
        """
        untold = [True]

        def before_step(optimizer: "Any", *_: object) -> None:  # noqa: ANN401 - torch's
            try:
                torch = optimizers["torch"]
                if torch.compiler.is_compiling() or not untold:
                    return
                cuda = torch.cuda
                if cuda.is_initialized() and cuda.is_current_stream_capturing():
                    return
                untold.pop()  # of threads that step at once, one finds it
            except BaseException as error:  # torch before 2.1
                if _is_of_signal(error):
                    raise
                return
            self.tell_state("step", optimizer)

        return before_step

    def tell_state(self, when: str, optimizer: object = None) -> None:
        """Tell what is set in this process, if it has anything loaded that has a state."""
        names: dict[str, Any] = {"__name__": "provenance_state"}
        try:
            self.lose(0)
            mapped = _mapped_libraries() - self.libraries
            self.libraries |= mapped
            exec(self.state.get_code("provenance_state"), names)  # noqa: S102 - our own
            found = names["values"](optimizer, _is_of_signal)
            texts = [_fields({name: found[name]}) for name in found]
            self.tell_parts(f'"state":"{when}","values":{{', texts, "}")
            self.tell_parts('"libraries":[', [_quoted(path) for path in sorted(mapped)], "]")
        except BaseException as error:
            if _is_of_signal(error):
                raise
            self.lose()

    def tell_parts(self, before: str, texts: "list[str]", after: str) -> None:
        """Tell *texts* in as many records as they need; none if there are none."""
        while texts:
            told = [texts.pop(0)]
            while texts and sum(map(len, told)) < MAX_LINE_BYTES // 8:  # characters
                told.append(texts.pop(0))
            self.tell(before + ",".join(told) + after)

    # Programs.

    def spawned(self, arguments: "Sequence[Any]") -> None:
        """Take ``os.posix_spawn``, except that of ``subprocess``, whose own event came before."""
        if sys._getframe(2).f_globals.get("__name__") != "subprocess":  # noqa: SLF001
            self.started(arguments[0], arguments[1], None, arguments[2])

    def started(self, program: "Any", words: "Any", folder: "Any", environ: "Any") -> None:  # noqa: ANN401 - what subprocess takes
        """Tell of *program*, if it exists, and of those *words* that may name a Python."""
        path = _found(os.fsdecode(program), folder, environ)
        given = [os.fsdecode(word) for word in words] if isinstance(words, (list, tuple)) else []
        if path is None or given[1:] in (["--version"], ["-V"]):
            return
        telling = _telling(path.rpartition("/")[2], given[1:65])
        if not telling and not _is_pythonic(path):
            if path in self.programs:
                return
            self.programs.add(path)
        self.starts += 1
        if self.starts > MAX_STARTED:
            self.lose()
            return
        texts = ",".join(_quoted(word[:256]) for word in telling[:16])
        self.tell(f'"started":{_quoted(path)},"words":[{texts}]')


def _searched() -> "list[str]":
    """Return ``sys.path`` without what Python ignores there: a program may add a ``Path``."""
    found: list[object] = [*sys.path]
    return [path for path in found if isinstance(path, str)]


def _kinds(
    watched: "Iterable[str]", left_out: "Iterable[str]", models: "Iterable[str]"
) -> "dict[str, int]":
    """Return the kinds of folders; a later rule counts before an earlier one of the same folder."""
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    library = os.path.dirname(os.__file__)  # noqa: PTH120 - pathlib costs 10 ms
    searched = _searched()
    sites = {path for path in searched if path.endswith(("/site-packages", "/dist-packages"))}
    kinds = {os.path.realpath(path).rstrip("/"): SKIPPED for path in prefixes | sites}
    for path in searched:  # a folder on PYTHONPATH, or one of an editable distribution
        real = os.path.realpath(path)
        if not any(f"{real}/".startswith(f"{known}/") for known in kinds) and os.path.isdir(real):  # noqa: PTH112 - as above
            kinds[real] = _WATCHED
    kinds.update(dict.fromkeys(watched, _WATCHED))
    kinds.update(dict.fromkeys((*left_out, *map(os.path.realpath, sites | {library})), SKIPPED))
    kinds.update(dict.fromkeys(models, _MODEL))
    return kinds


def _mapped_libraries() -> "set[str]":
    """Return the paths of libraries whose code this process has mapped, where Linux lists them."""
    try:
        with open("/proc/self/maps", "rb") as file:  # noqa: PTH123 - as above
            rows = [line.split(None, 5) for line in file.read(_MAX_MAPS_BYTES).splitlines()]
    except OSError as error:
        if _is_of_signal(error):
            raise
        return set()
    paths = [os.fsdecode(row[5]) for row in rows if len(row) > 5 and b"x" in row[1]]  # noqa: PLR2004
    return {path for path in paths if ".so" in path and not path.endswith(" (deleted)")}


def _is_of_signal(error: BaseException) -> bool:
    """Tell whether a signal's handler raised *error*: its frame was given the one that it broke."""
    trace = error.__traceback__
    while trace is not None and not isinstance(error, KeyboardInterrupt):
        frame, trace = trace.tb_frame, trace.tb_next
        for given in frame.f_locals.values():
            each = given if given.__class__ is tuple else (given,)  # *args
            if frame.f_back is not None and any(one is frame.f_back for one in each):
                return True
    return isinstance(error, KeyboardInterrupt)


def _found(program: str, folder: "Any", environ: "Any") -> "str | None":  # noqa: ANN401 - as of Popen
    """Return the path of the program that is started as *program*, or None."""
    if "/" in program:
        candidates = [program]
    else:
        variables = os.environ if environ is None else environ
        candidates = [f"{at or '.'}/{program}" for at in variables.get("PATH", "").split(":")]
    at = os.getcwd() if folder is None else os.path.abspath(os.fsdecode(folder))  # noqa: PTH100, PTH109
    for candidate in candidates:
        path = candidate if candidate.startswith("/") else f"{at}/{candidate}"
        if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113 - as above
            return path
    return None


def _telling(name: str, words: "list[str]") -> "list[str]":
    """Return what among the *words* of the program *name* may be a Python or start one."""
    if name not in LAUNCHERS:
        return []
    script = words[:1] if name in SHELLS and words and not words[0].startswith("-") else []
    tokens = [token for word in words for token in word[:4096].translate(_SEPARATORS).split()]
    return script + [token for token in tokens if _is_pythonic(token) or _is_launcher(token)]


def _is_pythonic(word: str) -> bool:
    return word.rpartition("/")[2].startswith(("python", "pypy"))


def _is_launcher(word: str) -> bool:
    return word.rpartition("/")[2] in LAUNCHERS or word.endswith(".sh")


def _quoted(text: str) -> str:
    if not text.isprintable() or '"' in text or "\\" in text:
        text = "".join(
            f"\\u{ord(char):04x}" if char < " " or char in '"\\\x7f' else char for char in text
        )
    return f'"{text}"'


def _fields(values: "Mapping[str, Any]") -> str:
    """Return *values*, which are texts, integers and truth values, as the inside of an object."""
    return ",".join(f"{_quoted(name)}:{_json(value)}" for name, value in values.items())


def _json(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else _quoted(str(value))


class Finder:
    """Offers a module ``provenance`` with ``current_run`` where none is installed."""

    def __init__(self, loader: object) -> None:
        """Offer what *loader* loads."""
        self.loader = loader

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> object:
        """Return how to load ``provenance`` (PEP 451)."""
        make: Any = type(sys.__spec__)  # ModuleSpec, without an import
        return make(name, self.loader, origin="provenance record") if name == "provenance" else None


def start(
    records: str, folders: "Sequence[Sequence[str]]", host: str, run: object, state: object
) -> None:
    """Begin to tell of *folders*, and offer what *run* loads: ``current_run``.

    On other hosts than the recorder's *host* it is told in another file.
    """
    here = os.uname().nodename
    if here != host:
        records = f"{records[:-6]}-{os.fsencode(here).hex()}.jsonl"
        os.close(os.open(records, _FLAGS | os.O_CREAT, 0o600))
    finder: Any = Finder(run)
    sys.meta_path.append(finder)
    watch = Watch(records, folders, state)
    if watch.introduce():
        os.environ[watch.variable] = str(watch.pid)
        sys.addaudithook(watch.hook())
        if watch.launched():
            atexit.register(watch.tell, '"ended":true')
        atexit.register(watch.tell_state, "exit")  # the first registered, so the last called
