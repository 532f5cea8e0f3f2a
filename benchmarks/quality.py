"""What a dtype costs and saves: bytes, cross entropy, distance from float32 and tokens a second of one model in each dtype.

    python benchmarks/quality.py MODEL TEXT [--limit BYTES] [--dtypes f32 q8_0 ...]      a table of one model with real weights
    python benchmarks/quality.py --shape 110M                                            bytes and speed alone, random weights

All start from the model's weights in float32, which are quantized in memory as `llamita export` does it. Cross entropy is
`llamita score`'s, each document by itself; KL and top-1 are those of `llamita export --verify` on the first tokens of the text.
Speed is the median of greedy decoding from an empty cache, in rounds through all dtypes, as a shared machine's speed drifts.
docs/quality.md holds the tables.
"""

import argparse
import math
import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from llamita.bench.own import OwnRun
from llamita.bench.protocol import Protocol
from llamita.bench.subject import Subject, own_memory, shape_model
from llamita.config import PRESETS
from llamita.data.sources import ReadOptions, documents, find_sources, sample
from llamita.engine.team import default_threads
from llamita.fidelity import Fidelity, measure, split
from llamita.formats import read_model
from llamita.judge import Score, score
from llamita.language_model import find_model
from llamita.model import Model, with_dtype
from llamita.tokenizer import Tokenizer

DTYPES = ["f32", "f16", "q8_0", "q4_0", "q4_1"]
DECODE_TOKENS = 128


@dataclass(frozen=True)
class Quality:
    """What one dtype does to a text; fidelity: beside float32, None for float32 itself."""

    score: Score
    fidelity: Fidelity | None


def group_of(model: Model) -> int:
    """Weights that share a scale in q8_0: 64, or what divides all rows."""
    config = model.config
    return math.gcd(64, config.width, config.query_width, config.mlp_width)


def quality_of(source: Model, model: Model, texts: list[str]) -> Quality:
    """Score a model, and compare it with its source in float32."""
    found = score(model, texts)
    if model is source:
        return Quality(found, None)
    tokenizer = cast(Tokenizer, source.tokenizer)
    begin = [tokenizer.bos_id] if tokenizer.adds_bos else []
    ids = list(chain.from_iterable(map(tokenizer.encode, texts)))
    return Quality(found, measure(source, model, split(ids, begin, source)))


def speeds_of(models: dict[str, Model], rounds: int) -> dict[str, float]:
    """Median tokens a second of each model, all measured in turn."""
    protocol = Protocol(default_threads(), prompt_tokens=1, decode_tokens=DECODE_TOKENS, batch=1)
    found: dict[str, list[float]] = {name: [] for name in models}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        runs = {
            name: stack.enter_context(OwnRun(Subject(name, model, folder), protocol.fitted(model.config)))
            for name, model in models.items()
        }
        for _ in range(rounds):
            for name, run in runs.items():
                run.warm_up()
                found[name].append(run.decode())
                print(f"{name}: {found[name][-1]:,.0f} tokens/s", file=sys.stderr, flush=True)
    return {name: statistics.median(each) for name, each in found.items()}


def table(models: dict[str, Model], qualities: dict[str, Quality], speeds: dict[str, float]) -> str:
    """The Markdown table; without qualities, of bytes and speed alone."""
    head = ["", "bytes", *(["nats/token", "bits/byte", "KL to f32", "top-1 as f32"] if qualities else []), "tokens/s"]
    lines = [head, ["---"] * len(head)]
    for name, model in models.items():
        line = [name, f"{sum(tensor.n_bytes for tensor in model.tensors.values()):,}"]
        if quality := qualities.get(name):
            line += [f"{quality.score.cross_entropy:.4f}", f"{quality.score.bits_per_byte:.4f}"]
            fidelity = quality.fidelity
            line += [f"{fidelity.kl_divergence:.2g}", f"{fidelity.top1_agreement:.1%}"] if fidelity else ["-", "-"]
        lines.append([*line, f"{speeds[name]:,.0f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def texts_of(names: list[str], limit_bytes: int) -> list[str]:
    """The documents of a text, about so many bytes from all of it."""
    sources, options = find_sources(names), ReadOptions()
    if sum(source.n_text_bytes for source in sources) > limit_bytes:
        return list(sample(sources, options, limit_bytes))
    return [document.text for document in documents(sources, options)]


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a file, a folder or a bundled name")
    parser.add_argument("text", nargs="*", metavar="TEXT", help="what `llamita score` reads")
    parser.add_argument("-z", "--tokenizer", metavar="PATH", help="the tokenizer; else the one beside the model")
    parser.add_argument("--shape", choices=sorted(PRESETS), help="random weights instead of a model")
    parser.add_argument("--limit", type=int, default=100_000, metavar="BYTES", help="of the text")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES)
    parser.add_argument("--rounds", type=int, default=5)
    wanted = parser.parse_args()
    qualities: dict[str, Quality] = {}
    if wanted.shape:
        made = {dtype: shape_model(PRESETS[wanted.shape], dtype) for dtype in wanted.dtypes}
        models = {
            dtype: Model(one.config, {name: own_memory(tensor) for name, tensor in one.tensors.items()}, name=one.name)
            for dtype, one in made.items()
        }
    else:
        if not wanted.model or not wanted.text:
            parser.error("found no MODEL with its TEXT, expected both, or --shape")
        source = with_dtype(read_model(find_model(wanted.model), wanted.tokenizer), "f32")
        models = {dtype: source if dtype == "f32" else with_dtype(source, dtype, group_of(source)) for dtype in wanted.dtypes}
        texts = texts_of(wanted.text, wanted.limit)
        for dtype, model in models.items():
            qualities[dtype] = quality_of(source, model, texts)
            print(f"{dtype}: {qualities[dtype].score.cross_entropy:.4f} nats/token", file=sys.stderr, flush=True)
        found = next(iter(qualities.values())).score
        print(f"{found.n_tokens:,} tokens of {found.n_documents:,} documents, {found.n_bytes:,} bytes.\n")
    print(table(models, qualities, speeds_of(models, wanted.rounds)))


if __name__ == "__main__":
    main()
