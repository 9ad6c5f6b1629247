"""What the tests of the autopilot share."""

from __future__ import annotations

import pytest
from piloted import Bench


@pytest.fixture
def bench(tmp_path, url):
    made = Bench(tmp_path, url)
    yield made
    made.store.close()
