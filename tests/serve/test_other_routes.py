"""Models, embeddings, the tokenizer, health and metrics."""

import base64
import re

import numpy as np
import pytest
from web import Web

from llamita.model import Model
from llamita.serve.responses import EmbeddingResponse, ModelList, TokenizerInfo


def test_the_model_is_listed_and_described(web: Web):
    listed = web.get("/v1/models").json
    ModelList.model_validate(listed)
    assert listed["data"] == [web.get("/v1/models/toy").json]
    assert web.get("/models").json == listed


def test_embeddings_come_as_numbers_and_in_base64(web: Web, toy_model: Model):
    body = {"input": ["Hello", "Hello there"]}
    numbers = web.post("/v1/embeddings", body).json
    EmbeddingResponse.model_validate(numbers)
    in_base64 = web.post("/v1/embeddings", body | {"encoding_format": "base64"}).json
    for a, b in zip(numbers["data"], in_base64["data"], strict=True):
        vector = np.frombuffer(base64.b64decode(b["embedding"]), "<f4")
        assert vector.shape == (toy_model.config.width,)
        np.testing.assert_array_equal(vector, np.array(a["embedding"], np.float32))
    counts = [web.post("/tokenize", {"prompt": text}).json["count"] for text in body["input"]]
    assert numbers["usage"] == {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}


def test_a_text_has_one_embedding_in_any_company_and_form(web: Web):
    ids = web.post("/tokenize", {"prompt": "Hello"}).json["tokens"]
    many = web.post("/v1/embeddings", {"input": ["Tom", "Hello", *["x"] * 20]}).json["data"]
    assert [entry["index"] for entry in many] == list(range(22))
    for form in ("Hello", ["Hello"], ids, [ids]):
        assert web.post("/v1/embeddings", {"input": form}).json["data"][0]["embedding"] == many[1]["embedding"]
    assert many[0]["embedding"] != many[1]["embedding"]


@pytest.mark.parametrize("text", ["Hello there", "", " two  spaces ", "Äpfel 😀", "<s>"])
def test_tokens_go_there_and_back(web: Web, text: str):
    by_vllm = web.post("/tokenize", {"prompt": text, "add_special_tokens": False, "return_token_strs": True}).json
    by_llama_cpp = web.post("/tokenize", {"content": text, "add_special": False, "with_pieces": True}).json
    assert by_vllm == by_llama_cpp
    assert by_vllm["count"] == len(by_vllm["tokens"]) == len(by_vllm["token_strs"])
    back = web.post("/detokenize", {"tokens": by_vllm["tokens"]}).json
    assert back == {"prompt": text, "content": text}


def test_special_tokens_are_written_out_and_read_again(web: Web):
    tokens = web.post("/tokenize", {"prompt": "Tom</s><s> Lily", "add_special_tokens": False}).json["tokens"]
    assert [token_id for token_id in tokens if token_id < 3] == [2, 1]
    assert web.post("/detokenize", {"tokens": tokens}).json["prompt"] == "Tom</s><s> Lily"
    assert web.post("/tokenize", {"prompt": "</s>", "add_special_tokens": False}).json["tokens"] == [2]  # so lm-eval finds EOS
    told = web.post("/tokenize", {"messages": [{"role": "user", "content": "Tom</s>"}]}).json["tokens"]
    assert 2 not in told


def test_a_text_to_embed_is_text(web: Web):
    marked = web.post("/v1/embeddings", {"input": "Tom</s>"}).json["usage"]["prompt_tokens"]
    assert marked > web.post("/tokenize", {"prompt": "Tom</s>"}).json["count"]


def test_a_text_has_its_bos_unless_told_otherwise(web: Web):
    with_bos, without = (web.post("/tokenize", {"prompt": "x", "add_special_tokens": b}).json["tokens"] for b in (True, False))
    assert with_bos == [1, *without]


def test_the_tokenizer_tells_of_its_special_tokens(web: Web):
    info = web.get("/tokenizer_info").json
    TokenizerInfo.model_validate(info)
    assert (info["bos_token"], info["eos_token"], info["chat_template"]) == ("<s>", "</s>", None)


def test_metrics_are_lines_that_prometheus_reads(web: Web):
    web.complete(prompt="Hello", max_tokens=3)
    answer = web.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.data.decode().splitlines()
    kinds = dict(line.split()[2:4] for line in lines if line.startswith("# TYPE"))
    sample = re.compile(r'([a-z_]+)(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? (\d+(\.\d+)?(e[+-]\d+)?)')
    for line in lines:
        if not line.startswith("#"):
            match = sample.fullmatch(line)
            assert match, line
            assert any(match[1] in (name, f"{name}_bucket", f"{name}_sum", f"{name}_count") for name in kinds), line
    counted = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}
    assert counted['llamita_requests_total{route="/completions",status="200"}'] >= 1
    assert counted["llamita_first_token_seconds_count"] == counted['llamita_first_token_seconds_bucket{le="+Inf"}'] >= 1
    assert counted["llamita_generated_tokens_total"] >= 3
    assert {"gauge", "counter", "histogram"} == set(kinds.values())


def test_metrics_of_strangers_paths_stay_few(web: Web):
    for i in range(5):
        web.get(f"/v1/nowhere-{i}")
        web.get(f"/v1/models/nowhere-{i}")
    assert "nowhere" not in web.get("/metrics").data.decode()


def test_the_schema_names_every_route(web: Web):
    paths = set(web.get("/openapi.json").json["paths"])
    assert paths == {
        "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models", "/v1/models/{model}",
        "/tokenize", "/detokenize", "/tokenizer_info", "/health", "/metrics",
    }  # fmt: skip


def test_the_docs_show_every_route_and_fetch_nothing(web: Web):
    answer = web.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = answer.data.decode()
    for path in web.get("/openapi.json").json["paths"]:
        assert f" {path}</code>" in page
    for field in ("repetition_penalty", "max_completion_tokens", "encoding_format", "add_special_tokens"):
        assert f"<td>{field}<td>" in page
    assert "<script" not in page
    assert "src=" not in page
    assert "'unsafe-inline'" in answer.headers["content-security-policy"]
