"""lm-eval asks llamita, in process and through the server, and `hf` on the same weights: both have to say the same.

    python tools/lm_eval_suite.py --llamita .venv/bin/llamita       # with the group `lm-eval`, see Makefile

`llamita eval` runs in llamita's own environment, which finds lm-eval in this one. The tasks are made of the tales that come
with llamita, so nothing is downloaded: the likelier of four continuations, perplexity of whole texts, and greedy answers.
Every loglikelihood must agree within 0.001, every choice and every answer exactly.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from served import served

TALES = Path(__file__).resolve().parent.parent / "src" / "llamita" / "bundled" / "tales.txt"
BOS_ID = 1
TOLERANCE = 1e-3
BATCHES = (1, 8)  # of llamita eval
EVAL = "import site, sys; site.addsitedir(sys.argv.pop(1)); from llamita.cli import main; sys.exit(main(sys.argv[1:]))"
TASKS: dict[str, dict[str, Any]] = {
    "continuation": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}],
    },
    "perplexity": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}],
    },
    "answer": {
        "output_type": "generate_until",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{text}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 24, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
}


def main() -> int:
    """Evaluate both ways and compare; exit 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llamita", default="llamita", help="the command that serves")
    parser.add_argument("--samples", type=int, default=24, help="texts of each task")
    parser.add_argument("--also", default="", metavar="MODEL", help="another model for llamita eval")
    options = parser.parse_args()
    os.environ |= {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_HOME"] = f"{folder}/cache"
        tasks = Path(folder) / "tasks"
        write_tasks(tasks, options.samples)
        model = export(options.llamita, "stories", Path(folder) / "model")
        of_hf = {"pretrained": model, "dtype": "float32", "device": "cpu"}
        expected = evaluate("hf", of_hf, tasks)
        status = compare_in_process(options.llamita, "stories", model, tasks, expected)
        with served([options.llamita], str(model)) as url:
            api = {"model": "model", "base_url": f"{url}/v1/completions", "num_concurrent": 4, "max_length": 384}
            found = evaluate("local-completions", api | {"tokenizer": model}, tasks)
            status |= compare("the server, its own tokenizer", expected, found, are_stripped=True)
            # of a server's tokenizer lm-eval wants ids without BOS, and would begin whole texts with EOS
            expected = evaluate("hf", of_hf | {"add_bos_token": False}, tasks)
            found = evaluate(
                "local-completions", api | {"tokenizer_backend": "remote", "custom_prefix_token_id": BOS_ID}, tasks
            )
            status |= compare("the server, the server's tokenizer", expected, found, are_stripped=True)
        if options.also:
            model = export(options.llamita, options.also, Path(folder) / "also")
            expected = evaluate("hf", of_hf | {"pretrained": model}, tasks)
            status |= compare_in_process(options.llamita, options.also, model, tasks, expected)
    return status


def export(llamita: str, name: str, folder: Path) -> Path:
    """Write a model as a Hugging Face folder in float32."""
    subprocess.run([llamita, "export", name, str(folder), "--to", "safetensors", "--dtype", "f32"], check=True)
    return folder


def compare_in_process(llamita: str, name: str, model: Path, tasks: Path, expected: dict[str, list[Any]]) -> int:
    """Compare `llamita eval`, in batches of all sizes, with what hf says; 1 where it differs too much."""
    return max(
        compare(f"llamita eval {name}, batch {batch}", expected, evaluate_in_process(llamita, model, tasks, batch))
        for batch in BATCHES
    )


def write_tasks(folder: Path, n_samples: int) -> None:
    """Write the tasks and their texts."""
    folder.mkdir()
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", TALES.read_text("utf-8").replace("\n", " ")) if 20 < len(s) < 120]
    chance, documents = random.Random(1), []
    for i in range(n_samples):
        start = i * (len(sentences) - 5) // n_samples
        choices = [" " + sentence for sentence in chance.sample(sentences, 4)]
        answer = chance.randrange(4)
        choices[answer] = " " + sentences[start + 2]
        context, text = " ".join(sentences[start : start + 2]), " ".join(sentences[start : start + 5])
        documents.append({"context": context, "choices": choices, "answer": answer, "text": text})
    data = folder / "tales.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name} | source | task), encoding="utf-8")  # JSON is YAML


def evaluate(kind: str, arguments: dict[str, Any], tasks: Path) -> dict[str, list[Any]]:
    """What lm-eval's model of some kind answers to each request of each task."""
    from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    text = ",".join(f"{name}={value}" for name, value in arguments.items())
    run_tasks: Any = simple_evaluate  # its decorators hide its parameters
    results = run_tasks(kind, model_args=text, tasks=list(TASKS), task_manager=manager, batch_size=4, bootstrap_iters=0)
    return answers_of(results)


def evaluate_in_process(llamita: str, model: Path, tasks: Path, batch: int) -> dict[str, list[Any]]:
    """What `llamita eval` answers to each request of each task."""
    python, here = Path(shutil.which(llamita) or llamita).parent / "python", sysconfig.get_path("purelib")
    output = tasks / "results.json"
    arguments = ["eval", model, "--tasks", ",".join(TASKS), "--include-path", tasks, "--batch", batch, "--output", output]
    subprocess.run([python, "-c", EVAL, here, *map(str, arguments), "--log-samples"], check=True, stdout=subprocess.DEVNULL)
    return answers_of(json.loads(output.read_text("utf-8")))


def answers_of(results: dict[str, Any]) -> dict[str, list[Any]]:
    """The answers to the requests of each task, in order."""
    answers: dict[str, list[Any]] = {}
    for name, samples in results["samples"].items():
        in_order = sorted(samples, key=lambda sample: sample["doc_id"])
        answers[name] = [answer[0] for sample in in_order for answer in sample["resps"]]
    return answers


def compare(name: str, expected: dict[str, list[Any]], found: dict[str, list[Any]], are_stripped: bool = False) -> int:
    """Print how far two evaluations are apart; 1 where that is too far. are_stripped: spaces around answers may differ."""
    status = 0
    for task in TASKS:
        pairs = list(zip(expected[task], found[task], strict=True))
        if task == "answer":
            # hf takes the first space of an answer for one that was put before the text, and so do we in process
            wrong, difference = sum((a.strip() != b.strip()) if are_stripped else (a != b) for a, b in pairs), 0.0
        else:
            numbers = [(a, b) if isinstance(a, float) else (float(a[0]), float(b[0])) for a, b in pairs]
            difference = max(abs(a - b) for a, b in numbers)
            wrong = sum(not isinstance(a, float) and str(a[1]) != str(b[1]) for a, b in pairs)
        is_wrong = wrong > 0 or difference > TOLERANCE
        status |= is_wrong
        verdict = "WRONG" if is_wrong else "equal"
        print(f"{name}, {task}: {len(pairs)} answers, {wrong} differ, loglikelihoods by {difference:.2g}: {verdict}")
    return status


if __name__ == "__main__":
    sys.exit(main())
