"""Where the recorded public data lies, beside the project; tests that read it skip where it does not."""

from __future__ import annotations

import pytest

from spotlab_pipelines.settings import PROJECT_ROOT

RECORDED = PROJECT_ROOT.parent / "shared" / "data"
needs_recorded_data = [
    pytest.mark.recorded,
    pytest.mark.skipif(not RECORDED.is_dir(), reason=f"the recorded data is not at {RECORDED}"),
]
"""For a module's `pytestmark`."""
