"""The import rules of the house as law: who may import whom, who may import which library, and that importing does nothing.

The table is "may import" of the README's "How the house is laid out"; read over the syntax tree, so lazy imports count too.
"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "llamita"
MODULES = sorted(path for path in SOURCE.rglob("*.py"))

MAY_IMPORT = {
    "__init__": {"language_model", "model", "config"},
    "__main__": {"cli"},
    "errors": set(),
    "files": set(),
    "cache": set(),
    "processor": set(),
    "config": set(),
    "quant": set(),
    "tokenizer": set(),
    "simd": {"cache"},
    "model": {"config", "quant", "tokenizer"},
    "formats": {"cache", "files", "model", "config", "quant", "tokenizer"},
    "engine": {"files", "processor", "model", "config", "quant", "simd"},
    "language_model": {"engine", "formats", "tokenizer", "model", "config"},
    "conversation": {"language_model", "engine", "tokenizer"},
    "transcript": {"files", "formats", "tokenizer"},
    "fidelity": {"engine", "model", "quant"},
    "judge": {"language_model", "engine", "formats", "tokenizer", "model", "config", "quant", "data"},
    "data": {"files", "processor", "formats", "tokenizer"},
    "train": {"files", "processor", "data", "formats", "tokenizer", "model", "config", "quant", "simd"},
    "serve": {"language_model", "engine", "tokenizer", "formats", "model", "config"},
    "bench": {"processor", "engine", "formats", "tokenizer", "model", "config", "quant"},
    "cli": {
        "files",
        "language_model",
        "conversation",
        "transcript",
        "fidelity",
        "judge",
        "engine",
        "formats",
        "tokenizer",
        "model",
        "config",
        "quant",
        "simd",
        "data",
        "train",
        "serve",
        "bench",
        "processor",
    },
}
ONLY_HOMES = {
    "torch": {"train"},
    "tensorboard": {"train"},
    "matplotlib": {"train"},
    "wandb": {"train"},
    "optuna": {"train"},
    "numba": {"engine", "simd", "train"},
    "llvmlite": {"engine", "simd", "train"},
    "fastapi": {"serve"},
    "starlette": {"serve"},
    "uvicorn": {"serve"},
    "pydantic": {"serve"},
    "llguidance": {"serve"},
    "click": {"cli"},
    "sentencepiece": {"tokenizer"},
    "tokenizers": {"tokenizer"},
    "jinja2": {"tokenizer"},
    "pyarrow": {"data"},
    "datasets": {"data"},
    "lm_eval": {"judge"},
    "pydivsufsort": {"judge"},
}

NEED_LM_EVAL = [SOURCE / "judge" / name for name in ("harness.py", "evaluation.py")]  # as serve needs its libraries


def unit_of(path: Path) -> str:
    """The name by which the table knows a file: its folder, or itself when it lies at the top."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[str]:
    """Every module that a file imports anywhere, as a dotted name."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            module = node.module or ""
            names += [f"{module}.{alias.name}" for alias in node.names] if module == "llamita" else [module]
    return names


def run_python(code: str, *arguments: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_part_of_the_house_stands_in_the_table():
    assert {unit_of(path) for path in MODULES} <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_only_what_the_table_allows(path: Path):
    unit = unit_of(path)
    allowed = MAY_IMPORT[unit] | {unit, "errors", "__version__"}
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        if top == "llamita":
            assert rest.partition(".")[0] in allowed, f"{path.name} imports {name}"
        assert unit in ONLY_HOMES.get(top, {unit}), f"{path.name} imports {name}, whose home is {ONLY_HOMES[top]}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_opens_with_a_docstring(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_every_library_that_we_import_is_declared():
    project = tomllib.loads((SOURCE.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    names = {re.split("[^a-z0-9-]", requirement.lower())[0].replace("-", "_") for requirement in declared}
    imported = {name.partition(".")[0] for path in MODULES for name in imports_of(path)}
    comes_along = {"llvmlite", "pydantic_core"}  # with numba and pydantic, which pin them to their releases
    assert imported - set(sys.stdlib_module_names) - {"llamita"} - comes_along <= names


def is_effect(statement: ast.stmt) -> bool:
    """Whether a statement at the top of a module does more than define names."""
    match statement:
        case ast.Expr(value=ast.Constant()):
            return False
        case ast.Assign(targets=targets):
            return not all(isinstance(target, ast.Name | ast.Tuple) for target in targets)
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return False
        case ast.If(body=body, orelse=orelse):
            return any(map(is_effect, body + orelse))
        case ast.Try(body=body, handlers=handlers):
            return any(map(is_effect, body + [inner for handler in handlers for inner in handler.body]))
    defines = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.AnnAssign | ast.Pass
    return not isinstance(statement, defines)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_the_top_of_a_module_only_defines_names(path: Path):
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        assert not is_effect(statement), f"{path.name}:{statement.lineno}: {ast.unparse(statement)[:80]}"


def test_importing_llamita_loads_no_library():
    code = "import sys, json; before = set(sys.modules); import llamita; print(json.dumps(sorted(set(sys.modules) - before)))"
    loaded = {name.partition(".")[0] for name in json.loads(run_python(code))}
    assert loaded - set(sys.stdlib_module_names) == {"llamita"}


def test_importing_every_inference_module_prints_nothing_starts_no_thread_and_leaves_the_environment():
    code = """
import importlib, os, sys, threading
environment = dict(os.environ)
for name in sys.argv[1:]:
    importlib.import_module(name)
assert dict(os.environ) == environment, set(os.environ.items()) ^ set(environment.items())
assert threading.active_count() == 1
assert not any(name.partition(".")[0] in ("torch", "fastapi") for name in sys.modules)
"""
    inference = [path for path in MODULES if unit_of(path) not in ("train", "serve", "__main__") and path not in NEED_LM_EVAL]
    names = [
        ".".join(("llamita", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__") for path in inference
    ]
    assert run_python(code, *names) == ""


def test_the_instruction_set_is_found_without_numba():
    code = """
import sys
from llamita.simd.isa import detect_isa
detect_isa()
print([name for name in ("numba", "numpy") if name in sys.modules])
"""
    assert run_python(code).strip() == "[]"


def test_a_story_is_told_where_torch_cannot_be_imported():
    code = """
import sys
sys.modules["torch"] = None  # importing it now raises ImportError
import llamita
with llamita.load("stories") as model:
    print(model.generate("Once upon a time", n_tokens=8, temperature=0))
"""
    assert run_python(code).strip()
