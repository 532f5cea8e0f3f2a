"""A check of our own for tools/fuzz_http.py: what the schema allows is never refused as something that it forbids."""

import schemathesis  # pyright: ignore[reportMissingImports]


@schemathesis.check
def what_the_schema_allows_is_understood(_: object, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """Refusals of requests that the schema allows have other codes than invalid_value and invalid_json."""
    is_allowed = case.meta is not None and case.meta.generation.mode.is_positive
    if is_allowed and response.status_code == 400:
        assert response.json()["error"]["code"] not in ("invalid_value", "invalid_json"), response.text
