"""llamita: the whole life of a small Llama in Python. This file is the public API and nothing else.

    import llamita
    model = llamita.load("stories")
    for piece in model.stream("Once upon a time"):
        print(piece, end="")

Importing it does no work: each name is looked up when it is first used, so `import llamita` loads no library.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamita.config import ModelConfig
    from llamita.errors import LlamitaError
    from llamita.language_model import LanguageModel, load
    from llamita.model import Model

__version__ = "0.1.0"

__all__ = ["LanguageModel", "LlamitaError", "Model", "ModelConfig", "__version__", "load"]

_HOMES = {
    "LanguageModel": "llamita.language_model",
    "LlamitaError": "llamita.errors",
    "Model": "llamita.model",
    "ModelConfig": "llamita.config",
    "load": "llamita.language_model",
}


def __getattr__(name: str) -> object:
    """Import the home of a public name at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'llamita' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
