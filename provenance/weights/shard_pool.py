"""The shards of one set of weights, of which a bounded number is open.

A model can have more shards than a process may open files, and a comparison reads two or three
models. At most ``MAX_OPEN`` shards are kept open, beside those that are being read. One that is
opened again must have kept its inode, size and times: its bytes are hashed only once.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Final

from provenance.errors import UnreadableError
from provenance.files.reading import identity, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from provenance.weights.view import TensorFile

    Opener = Callable[[Path, str, str | None], TensorFile]
    """Opens the file at a path: what errors call it, and the SHA-256 that it should have."""

MAX_OPEN: Final = 64
"""Most shards that are kept open: three models side by side stay within the 256 descriptors that
macOS allows a process."""


class Shards:
    """The shards' readers by name. Close it, when no shard is in use."""

    def __init__(
        self, folder: Path, opener: Opener, shown: str, sha256: Mapping[str, str] | None
    ) -> None:
        """Open shards in *folder* by *opener*; errors call the whole *shown*.

        *sha256*, in hexadecimal, is what each shard should have.
        """
        self._folder = folder
        self._opener = opener
        self._shown = shown
        self._sha256 = sha256
        self._lock = RLock()
        self._open: OrderedDict[str, TensorFile] = OrderedDict()
        """The one used last at the end."""
        self._users: Counter[str] = Counter()
        self._states: dict[str, tuple[int, ...]] = {}

    def shown(self, name: str) -> str:
        """Return what errors call the shard *name*."""
        return f"{self._shown}: {name}"

    @contextmanager
    def use(self, name: str) -> Iterator[TensorFile]:
        """Have the shard *name* open; it is not closed meanwhile.

        Raises:
            ContentError: it has another SHA-256.
            MalformedError: it is not what its format allows.
            UnreadableError: it cannot be read, or is not the file that it was.
        """
        with self._lock:
            if name not in self._open:
                self._open[name] = self._opened(name)
            self._open.move_to_end(name)
            self._users[name] += 1
            self._close_oldest()
            file = self._open[name]
        try:
            yield file
        finally:
            with self._lock:
                self._users[name] -= 1
                self._close_oldest()

    def _close_oldest(self) -> None:
        for name in list(self._open):
            if len(self._open) <= MAX_OPEN:
                break
            # The collector may end another reading meanwhile, which closes some as well.
            if not self._users[name] and (file := self._open.pop(name, None)) is not None:
                file.close()

    def _opened(self, name: str) -> TensorFile:
        """Open the shard *name*, which must be the file that it was before."""
        sha256 = self._sha256[name] if self._sha256 is not None else None
        state = self._state(name)
        if name in self._states:
            self._check_state(name, self._states[name])
            sha256 = None
        file = self._opener(self._folder / name, self.shown(name), sha256)
        try:
            self._check_state(name, state)
        except BaseException:
            file.close()
            raise
        self._states[name] = state
        return file

    def _check_state(self, name: str, state: tuple[int, ...]) -> None:
        if self._state(name) != state:
            raise UnreadableError("changed while it was read", where=self.shown(name))

    def _state(self, name: str) -> tuple[int, ...]:
        try:
            return identity((self._folder / name).stat())
        except OSError as error:
            raise unreadable(error, self.shown(name)) from error

    def check_unchanged(self) -> None:
        """Raise UnreadableError if a shard is not what it was when it was opened."""
        with self._lock:
            for name, state in self._states.items():
                self._check_state(name, state)
            for file in self._open.values():
                file.check_unchanged()

    def close(self) -> None:
        """Close every shard."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()
