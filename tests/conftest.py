"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# A test proves what is true, not how fast: machines are shared, and time is measured in benchmarks/.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
