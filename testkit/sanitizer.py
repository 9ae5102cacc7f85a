"""Whether the tests run under AddressSanitizer (`make sanitize`), which keeps the memory that was freed."""

import os

import pytest

SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")
measures_memory = pytest.mark.skipif(SANITIZED, reason="AddressSanitizer keeps what is freed")
