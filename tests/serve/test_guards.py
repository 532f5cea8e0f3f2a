"""Who may talk to the server: keys, hosts, origins, methods and routes."""

import re
from collections.abc import Iterator

import pytest
from web import Web, serving

from llamita.errors import SettingError
from llamita.model import Model
from llamita.serve.guards import host_name
from llamita.serve.settings import Settings

KEY = "sk-secret"
OPEN = {"/health"}
PATHS = (
    "/health", "/metrics", "/v1/models", "/models", "/v1/models/toy", "/tokenizer_info", "/openapi.json", "/docs", "/nowhere",
    "/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize", "/detokenize", "/completions",
)  # fmt: skip


@pytest.fixture(scope="module")
def guarded(toy_model: Model) -> Iterator[Web]:
    with serving(toy_model, api_key=KEY, cors_origins=("https://me.example",), allowed_hosts=("llama.example",)) as web:
        yield web


@pytest.mark.parametrize("path", PATHS)
def test_every_route_but_the_health_check_wants_the_key(guarded: Web, path: str):
    wrong = [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"X-Api-Key": "x"},
    ]
    for headers in wrong:
        answer = guarded.get(path, **headers)
        assert (answer.status == 200) if path in OPEN else (answer.status == 401)
        if answer.status == 401:
            assert answer.error["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.get(f"{path}?api_key={KEY}").status == guarded.get(path).status
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}, {"X-Api-Key": KEY}):
        assert guarded.get(path, **headers).status in (200, 404, 405)


def test_the_key_is_wanted_before_the_body_is_read(guarded: Web):
    answer = guarded.send("POST", "/v1/completions", headers={"Content-Length": "1000000", "Content-Type": "application/json"})
    assert answer.status == 401


@pytest.mark.parametrize(
    "path", ["//v1/models", "/page/../v1/models", "/page/%2e%2e/v1/models", "/health/", "/page/..%2fapp.py"]
)
def test_no_spelling_of_a_path_goes_around_the_key(guarded: Web, path: str):
    assert guarded.get(path).status in (401, 404)


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:80", "192.168.0.7", "llama.example:80"])
def test_addresses_and_allowed_names_may_be_called(guarded: Web, host: str):
    assert guarded.get("/health", Host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "[::1", "a" * 300])
def test_other_names_are_refused_whatever_the_key(guarded: Web, host: str):
    answer = guarded.get("/health", Host=host, Authorization=f"Bearer {KEY}")
    assert answer.status in (400, 403)


def test_pages_of_allowed_origins_may_call(guarded: Web):
    asked = {"Origin": "https://me.example", "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,content-type"
    allowed = guarded.send("OPTIONS", "/v1/completions", headers=asked)
    assert allowed.status == 200
    assert allowed.headers["access-control-allow-origin"] == "https://me.example"
    assert "access-control-allow-credentials" not in allowed.headers
    assert "access-control-allow-origin" in guarded.get("/v1/models", Origin="https://me.example").headers  # of a 401, too
    refused = guarded.send("OPTIONS", "/v1/completions", headers=asked | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in refused.headers


def test_no_origin_is_allowed_unless_one_is_named(web: Web):
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    assert web.send("OPTIONS", "/v1/completions", headers=asked).status == 405
    assert not [name for name in web.get("/v1/models", **asked).headers if name.startswith("access-control")]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""])
def test_what_a_foreign_page_may_send_without_asking_starts_nothing(web: Web, kind: str):
    answer = web.post("/v1/completions", {"prompt": "x"}, **{"Content-Type": kind})
    assert answer.status == 415
    assert answer.error["code"] == "unsupported_media_type"


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/completions"), ("DELETE", "/v1/models/toy"), ("PUT", "/health")])
def test_other_methods_are_refused_with_those_that_work(web: Web, method: str, path: str):
    answer = web.send(method, path)
    assert answer.status == 405
    assert answer.headers["allow"]
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "path", ["/", "/health", "/v1/models", "/models/toy", "/metrics", "/docs", "/openapi.json", "/nowhere"]
)
def test_head_is_get_without_a_body(web: Web, path: str):
    whole, head = web.get(path), web.send("HEAD", path)
    assert (head.status, head.data) == (whole.status, b"")
    assert set(head.headers) == set(whole.headers)
    assert head.headers["content-type"] == whole.headers["content-type"]


def test_head_does_not_go_around_the_key_nor_start_any_work(web: Web, guarded: Web):
    assert guarded.send("HEAD", "/v1/models").status == 401
    assert guarded.send("HEAD", "/health").status == 200
    assert guarded.send("HEAD", "/health", headers={"Host": "evil.example"}).status == 403
    assert web.send("HEAD", "/v1/completions").status == 405
    assert 'route="/health",status="200"' in web.get("/metrics").data.decode()


def test_unknown_routes_and_models_are_not_found(web: Web):
    for path in ("/v2/models", "/page/nothing.js"):
        error = web.get(path).error
        assert (error["type"], error["code"]) == ("not_found_error", "route_not_found")
    assert web.get("/v1/models/gpt-4").error["code"] == "model_not_found"


def test_headers_beyond_any_need_are_refused(web: Web):
    answer = web.get("/v1/models", **{"X-Large": "x" * 40_000})
    assert answer.status == 431
    assert answer.error["code"] == "headers_too_large"
    assert web.get("/v1/models", **{"X-Larger": "x" * 200_000}).status in (400, 431)


def test_any_name_will_do_for_the_model_unless_told_otherwise(web: Web, toy_model: Model):
    assert web.complete(prompt="Tom", model="gpt-4o", max_tokens=1)["model"] == "toy"
    with serving(toy_model, strict_model=True) as strict:
        assert strict.post("/v1/completions", {"prompt": "Tom", "model": "gpt-4o"}).error["code"] == "model_not_found"
        assert strict.complete(prompt="Tom", model="toy", max_tokens=1)["model"] == "toy"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::", "my.machine"])
def test_other_machines_are_served_with_a_key_only(host: str):
    with pytest.raises(SettingError, match="--api-key"):
        Settings("toy", host=host).validate()
    assert Settings("toy", host=host, api_key=KEY).validate()
    assert Settings("toy", host=host, insecure=True).validate()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_is_served_without_a_key(host: str):
    assert Settings("toy", host=host).validate()


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e12, -1.0])
def test_nobody_waits_for_ever_at_the_end(seconds: float):
    with pytest.raises(SettingError, match=r"--drain: found .*, expected 0 to 86400 seconds"):
        Settings("toy", drain_seconds=seconds).validate()
    assert Settings("toy", drain_seconds=86_400).validate()


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://me.example/", "https://me.example,"),
        ("https://Me.Example", "https://me.example,"),
        ("https://me.example:443", "https://me.example,"),
        ("http://me.example:8080/chat", "http://me.example:8080,"),
        ("me.example", "an origin such as https://me.example,"),
        ("me.example:80", "an origin such as https://me.example,"),
        ("http://x:99999", "an origin such as"),
        ("https://*.example.com", "an origin such as"),
        ("http://me .example", "an origin such as"),
        ("", "an origin such as"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str, expected: str):
    with pytest.raises(SettingError, match=re.escape(f"--cors-origin: found '{origin}', expected {expected}")):
        Settings("toy", cors_origins=("https://other.example", origin)).validate()


@pytest.mark.parametrize(
    "name", ["foo.example:8397", "http://foo.example", "foo.example/", "[::1]", "", "f\u00fc.example", "a b"]
)
def test_a_host_that_no_client_calls_is_refused(name: str):
    with pytest.raises(SettingError, match=r"--allowed-host: found .*, expected a name without a port"):
        Settings("toy", allowed_hosts=("other.example", name)).validate()


def test_origins_and_hosts_as_they_come_are_taken():
    origins = ("https://me.example", "http://localhost:3000", "http://[::1]:3000", "app://obsidian.md", "null", "*")
    assert Settings("toy", cors_origins=origins, allowed_hosts=("Foo.example", "my_box", "::1", "*")).validate()


@pytest.mark.parametrize("key", ["with space", "schlüssel", "line\nend"])
def test_a_key_that_no_header_carries_is_refused(key: str):
    with pytest.raises(SettingError, match="--api-key"):
        Settings("toy", api_key=key).validate()


@pytest.mark.parametrize(
    ("header", "name"),
    [("a.example:80", "a.example"), ("A.Example", "a.example"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("1.2.3.4", "1.2.3.4")],
)
def test_a_host_header_is_a_name_and_perhaps_a_port(header: str, name: str):
    assert host_name(header) == name
