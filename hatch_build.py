"""Compile ``provenance/measure/_kernel.c`` into the wheel, where there is a compiler of C.

The library is loaded with ctypes: it depends on the platform and on no version of Python. Without a
compiler the wheel is a pure one, and numpy does the same work, bit for bit (docs/adr/0011). The
source distribution has the source alone.

``CC`` names another compiler than ``cc``.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags

SOURCE = "provenance/measure/_kernel.c"
LIBRARY = "provenance/measure/_kernel.lib"
"""No suffix of an extension module of Python: it is none, and must not be imported."""

FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fPIC", "-shared"]

CLONES = '-DCLONES=__attribute__((target_clones("arch=x86-64-v4","arch=x86-64-v3","default")))'
"""Code for processors with AVX-512, with AVX2, and for others; the loader chooses. GCC 12 and
clang 18 or later on x86-64 Linux know it, and others are asked again without."""


class KernelHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled kernel to a wheel, an editable one too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say in the wheel's tag for which platform."""
        del version
        if not compiled(Path(self.root)):
            self.app.display_warning("no compiler of C: tensors will be compared by numpy alone")
            return
        generic = "manylinux", "musllinux"  # they promise more than one machine's compiler does
        platform = next(tag.platform for tag in sys_tags() if not tag.platform.startswith(generic))
        build_data["artifacts"].append(LIBRARY)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"


def compiled(root: Path) -> bool:
    """Compile the kernel below *root*, and tell whether that worked: no failure is an error.

    A library of an earlier build is removed first; the new one appears at once and whole.
    """
    library = root / LIBRARY
    try:
        library.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder, library.name)
            compiler = shlex.split(os.environ.get("CC", "cc"))
            for more in ([CLONES], []):
                command = [*compiler, *FLAGS, *more, "-o", str(made), str(root / SOURCE)]
                if subprocess.run(command, check=False, capture_output=True).returncode == 0:
                    made.replace(library)
                    return True
    except OSError:
        pass
    return False
