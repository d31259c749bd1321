"""Prove how a machine-learning model was made.

The verbs of the command line as functions, each loaded when it is first used (``docs/api.md``)::

    import provenance

    provenance.keygen("alice")
    provenance.record(["python", "train.py"], model="model", key="alice", equality="tensors")
    verified = provenance.verify("model", keys=["alice.pub"])

Inside a training program :func:`current_run` gives the run that ``provenance record`` wraps.
Outside the recorder its methods do nothing, so a program needs no switch::

    run = provenance.current_run()
    run.metric("loss", 0.25, step=10)
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` itself would be most of the time that the import takes
if TYPE_CHECKING:
    from provenance.api.checking import agree, compare, verify
    from provenance.api.finishing import finish
    from provenance.api.making import attest, record
    from provenance.api.recording import recording
    from provenance.api.repeating import rebuild
    from provenance.api.signing import keygen, publish, resign, sign
    from provenance.capture.run import current_run
    from provenance.errors import CommandError, ProvenanceError, UnfinishedError

__all__ = [
    "CommandError",
    "ProvenanceError",
    "UnfinishedError",
    "__version__",
    "agree",
    "attest",
    "compare",
    "current_run",
    "finish",
    "keygen",
    "publish",
    "rebuild",
    "record",
    "recording",
    "resign",
    "sign",
    "verify",
]

__version__ = "0.1.0"


_HOMES = {
    "api.checking": ("agree", "compare", "verify"),
    "api.finishing": ("finish",),
    "api.making": ("attest", "record"),
    "api.recording": ("recording",),
    "api.repeating": ("rebuild",),
    "api.signing": ("keygen", "publish", "resign", "sign"),
    "capture.run": ("current_run",),
    "errors": ("CommandError", "ProvenanceError", "UnfinishedError"),
}


def __getattr__(name: str) -> object:
    """Load what is offered when it is first used (PEP 562): importing the package is fast."""
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module  # noqa: PLC0415 - see above

            value: object = getattr(import_module(f"{__name__}.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
