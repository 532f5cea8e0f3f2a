"""Judging a model: how well it foretells text, whether it is better than another, whether it copies what it was trained on.

Stands beside the server, on top of the engine: models and texts in, numbers out, without torch. documents.py, windows.py,
losses.py and scoring.py are `score` from the text to the number; comparison.py and resampling.py say what is noise.
"""

from llamita.judge.comparison import Comparison, compare
from llamita.judge.scoring import Score, score

__all__ = ["Comparison", "Score", "compare", "score"]
