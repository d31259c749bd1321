"""What every test shares: how hypothesis draws its examples."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: a busy machine is not a defect. In CI the same examples every time, so that a change
# is judged by what it changed; at a developer's desk new ones, kept in .hypothesis when they fail.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")
