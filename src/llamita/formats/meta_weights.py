"""Weights under Meta's names as a Model: what the folders of Meta and the training checkpoints of llama2.c have in common.

Sizes come from the tensors wherever they show; the few numbers that do not (heads, epsilon, RoPE) come from `params`, a dict of
Meta's names, and every other number there must agree. Rows of query and key lie in canonical order. Knows no file layout.
Source: model.py of github.com/meta-llama/llama and llama-models, model.py of llama2.c.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fspath

from llamita.config import LIMITS, ModelConfig, RopeScaling
from llamita.errors import ModelFileError
from llamita.formats.json_text import shown
from llamita.formats.tied_head import have_same_bits
from llamita.model import Model, tensor_shapes
from llamita.quant import Tensor

_NAMES = {"embedding": "tok_embeddings.weight", "norm": "norm.weight", "head": "output.weight"}
_LAYER_NAMES = {
    "attention_norm": "attention_norm",
    "attention.query": "attention.wq",
    "attention.key": "attention.wk",
    "attention.value": "attention.wv",
    "attention.output": "attention.wo",
    "mlp_norm": "ffn_norm",
    "mlp.gate": "feed_forward.w1",
    "mlp.down": "feed_forward.w2",
    "mlp.up": "feed_forward.w3",
}
_TABLES = ("rope.freqs", "freqs_cos", "freqs_sin", "attention.mask")  # which some versions saved, and all recompute
# of params: another computation, if there
_OTHER_MODELS = ("moe", "quantization_args", "lora_args", "vision_model", "rope_high_freq_factor")


@dataclass(frozen=True)
class Params:
    """The numbers of a checkpoint by Meta's names, checked one by one; path is for messages."""

    values: Mapping[str, object]
    path: str | PathLike[str]

    def count(self, name: str, field: str, default: int | None = None) -> int:
        """A positive integer within the limit of the config's field; null and a missing one stand for the default."""
        value = self.values.get(name)
        value = default if value is None else value
        if type(value) is not int or not 1 <= value <= LIMITS[field]:
            raise ModelFileError(self.path, name, shown(value), f"1 to {LIMITS[field]}")
        return value

    def number(self, name: str, default: float, below: float) -> float:
        """A positive number; null and a missing one stand for the default."""
        value = self.values.get(name)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < below:
            raise ModelFileError(self.path, name, shown(value), f"a positive number below {below:g}")
        return float(value)


def meta_name(name: str) -> str:
    """Meta's name of a canonical tensor.

    >>> meta_name("layers.3.mlp.gate")
    'layers.3.feed_forward.w1.weight'
    """
    if name in _NAMES:
        return _NAMES[name]
    _, layer, part = name.split(".", 2)
    return f"layers.{layer}.{_LAYER_NAMES[part]}.weight"


def build_model(path: str | PathLike[str], stored: dict[str, Tensor], params: Params, source_format: str) -> Model:
    """A Model of the tensors of a checkpoint, which stay as they are; path is its file or folder.

    A head that repeats the embedding counts as tied. Raises ModelFileError unless params and tensors are those of one Llama.
    """
    stored = {name: tensor for name, tensor in stored.items() if not name.endswith(_TABLES)}
    embedding, head = _matrix(path, stored, _NAMES["embedding"], "vocab_size"), stored.get(_NAMES["head"])
    tied = head is None or have_same_bits(head, embedding)
    if tied:
        stored.pop(_NAMES["head"], None)
    config = _config(path, stored, params, tied)
    tensors = {name: _find(path, stored, meta_name(name)) for name in tensor_shapes(config)}
    for name, shape in tensor_shapes(config).items():
        if tensors[name].shape != shape:
            raise ModelFileError(path, f"shape of {meta_name(name)}", tensors[name].shape, f"{shape} as its numbers say")
    if extra := sorted(set(stored) - {meta_name(name) for name in tensors}):
        raise ModelFileError(path, "tensors", shown(extra[0]), "only those of a Llama without biases")
    return Model(config, tensors, name=fspath(path), source_format=source_format)


def _find(path: str | PathLike[str], stored: dict[str, Tensor], name: str) -> Tensor:
    tensor = stored.get(name)
    if tensor is None:
        raise ModelFileError(path, "tensors", f"no {name}", "one, under Meta's name")
    return tensor


def _matrix(path: str | PathLike[str], stored: dict[str, Tensor], name: str, field: str) -> Tensor:
    """A matrix whose number of rows is a field of the config."""
    tensor = _find(path, stored, name)
    if len(tensor.shape) != 2 or not 1 <= tensor.shape[0] <= LIMITS[field]:
        raise ModelFileError(path, f"shape of {name}", tensor.shape, f"1 to {LIMITS[field]} rows, and columns")
    return tensor


def _config(path: str | PathLike[str], stored: dict[str, Tensor], params: Params, tied: bool) -> ModelConfig:
    for name in _OTHER_MODELS:
        if params.values.get(name):
            raise ModelFileError(params.path, name, shown(params.values[name]), "none", "llamita does not run such a model")
    width, n_heads = params.count("dim", "width"), params.count("n_heads", "n_heads")
    n_kv_heads = params.count("n_kv_heads", "n_kv_heads", n_heads)
    head_size = params.count("head_dim", "head_size", width // n_heads)
    if (params.values.get("head_dim") is None and width % n_heads) or n_heads % n_kv_heads or head_size % 2:
        found = f"{n_heads} heads of {head_size} numbers, {n_kv_heads} for keys"
        expected = f"heads of an even size that divide dim {width}, and a divisor of their number for keys"
        raise ModelFileError(params.path, "n_heads", found, expected)
    mlp_width = _matrix(path, stored, meta_name("layers.0.mlp.gate"), "mlp_width").shape[0]
    _check_mlp_width(params, width, mlp_width)
    scaling = _rope_scaling(params, tied)
    theta = params.number("rope_theta", 10000.0, below=1e12)
    return ModelConfig(
        width=width,
        n_layers=params.count("n_layers", "n_layers"),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        mlp_width=mlp_width,
        vocab_size=stored[_NAMES["embedding"]].shape[0],
        context=_context(params, theta, scaling),
        head_size=head_size,
        rope_theta=theta,
        norm_epsilon=params.number("norm_eps", 1e-5, below=1),
        tied_embedding=tied,
        rope_scaling=scaling,
    )


def _check_mlp_width(params: Params, width: int, found: int) -> None:
    """Compare w1 with what the constructor of Meta's FeedForward makes of params; Mistral says the width itself."""
    said = params.count("hidden_dim", "mlp_width", found)
    if params.values.get("multiple_of") and not params.values.get("hidden_dim"):
        multiple = params.count("multiple_of", "mlp_width")
        multiplier = params.number("ffn_dim_multiplier", 1.0, below=1e3)
        said = -(-int(multiplier * int(8 * width / 3)) // multiple) * multiple
    if said != found:
        remedy = "is a consolidated.NN.pth missing?" if said % found == 0 else ""
        raise ModelFileError(params.path, "width of the MLP", f"{found} rows of w1", f"{said} as the numbers say", remedy)


def _rope_scaling(params: Params, tied: bool) -> RopeScaling | None:
    """Llama 3.1's stretched RoPE, whose numbers are written into Meta's code.

    The factor there is that of 3.1; the tied models, 3.2's of 1B and 3B, have another: github.com/meta-llama/llama-models,
    issue 241.
    """
    scaled = params.values.get("use_scaled_rope", False)
    if not isinstance(scaled, bool):
        raise ModelFileError(params.path, "use_scaled_rope", shown(scaled), "true or false")
    if not scaled:
        return None
    factor = params.number("rope_scaling_factor", 32.0 if tied else 8.0, below=1e6)
    return RopeScaling("llama3", factor, low_frequency_factor=1.0, high_frequency_factor=4.0, original_context=8192)


def _context(params: Params, theta: float, scaling: RopeScaling | None) -> int:
    """Tokens that the model saw at once: what params say, else what is known of Meta's models, which do not say.

    2048 is llama2.c's number for Llama 2. A window of attention, as Mistral has it, changes nothing while all fits into it.
    """
    known = 131072 if scaling else {10000.0: 2048, 500000.0: 8192}.get(theta, 16384)  # the last: Code Llama
    return min(params.count("max_seq_len", "context", known), params.count("sliding_window", "context", LIMITS["context"]))
