"""The engine: a Model and ids in, ids and logits out. Numba compiles it for this processor; it never imports torch.

engine.py, sequence.py and scores.py are the Python side; work.py is the compiled entry point, forward.py the pass through the
model, matmul.py with quantized_tile.py and float_tile.py where the time goes; compiled.py loads the machine code.
"""

from llamita.engine.engine import Engine
from llamita.engine.sampling import Sampling
from llamita.engine.scores import Reading, Score
from llamita.engine.sequence import Sequence

__all__ = ["Engine", "Reading", "Sampling", "Score", "Sequence"]
