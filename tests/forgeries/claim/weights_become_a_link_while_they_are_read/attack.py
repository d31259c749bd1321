"""The attacker waits until config.json is read, and puts a link in the place of the weights."""

import os
from pathlib import Path
from typing import Any

opened = os.open


def swap(path: Any, *given: Any, **more: Any) -> int:  # noqa: ANN401 - as os.open has them
    if str(path).endswith("config.json") and Path("model/model.bin").is_file():
        Path("model/model.bin").rename("elsewhere.bin")
        Path("model/model.bin").symlink_to("../elsewhere.bin")
    return opened(path, *given, **more)


def attack(monkeypatch: Any) -> None:  # noqa: ANN401 - pytest's
    monkeypatch.setattr(os, "open", swap)
