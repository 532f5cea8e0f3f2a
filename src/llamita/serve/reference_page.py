"""The page of /docs: the server's routes and their fields, written from its OpenAPI description as plain HTML.

FastAPI's own page fetches scripts from elsewhere; this one fetches nothing and runs nothing. Knows no route.
"""

from collections.abc import Iterator
from html import escape
from typing import Any

from llamita.serve.errors import shown

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, td:first-child { font-family: ui-monospace, monospace; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; }
h2 { margin-top: 2.5rem; }
"""
Schema = dict[str, Any]


def reference_page(description: Schema) -> str:
    """The page for an OpenAPI description."""
    info = description["info"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}: API</title>",
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['summary'])}</p>",
        "<p>The same for programs: <a href=openapi.json>openapi.json</a>.</p>",
    ]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts += _operation(f"{method.upper()} {path}", operation, description)
    return "\n".join(parts)


def _operation(title: str, operation: Schema, description: Schema) -> Iterator[str]:
    """One route: what it does, what it takes, what it answers."""
    yield f"<h2><code>{escape(title)}</code></h2><p>{escape(operation.get('description', ''))}</p>"
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body:
        yield "<table><tr><th>field<th>type<th>default<th>"
        schema = _resolved(body, description)
        required = schema.get("required", ())
        for name, field in schema["properties"].items():
            default = "required" if name in required else shown(field["default"]) if "default" in field else ""
            cells = (name, _type_of(field, description), default, field.get("description", ""))
            yield "<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells)
        yield "</table>"
    yield "<p>Answers:</p><table>"
    for status, answer in sorted(operation["responses"].items()):
        yield f"<tr><td>{escape(status)}<td>{escape(answer['description'])}"
    yield "</table>"


def _resolved(schema: Schema, description: Schema) -> Schema:
    name = schema.get("$ref", "").rpartition("/")[2]
    return description["components"]["schemas"][name] if name else schema


def _type_of(field: Schema, description: Schema) -> str:
    """The type of a field in a few words."""
    alternatives = field.get("anyOf") or field.get("oneOf")
    if alternatives:
        types = (_type_of(alternative, description) for alternative in alternatives)
        return " or ".join(dict.fromkeys(kind for kind in types if kind != "null")) or "null"
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    if "enum" in field:
        return " or ".join(map(repr, field["enum"]))
    if field.get("type") == "array":
        return f"list of {_type_of(field.get('items', {}), description)}"
    return str(field.get("type", repr(field["const"]) if "const" in field else "any")) + _bounds_of(field)


def _bounds_of(field: Schema) -> str:
    """The range of a number."""
    low = field.get("minimum", field.get("exclusiveMinimum"))
    high = field.get("maximum", field.get("exclusiveMaximum"))
    if low is None or high is None:
        return ""
    return f" {low:g} to {high:g}" if high < 1 << 20 else f" from {low:g}"
