"""GET / and the files of the page, a chat in the browser. They lie in serve/page/ and need no key; the page asks for it."""

from pathlib import Path

from fastapi import Response
from starlette.responses import FileResponse

from llamita.serve.errors import ROUTE_NOT_FOUND, ApiError
from llamita.serve.routes.common import new_router

FOLDER = Path(__file__).resolve().parent.parent / "page"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
# no script, style, image or request but the server's own, and in nobody's frame
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

router = new_router()


@router.get("/", include_in_schema=False)
async def show_page() -> Response:
    """The page."""
    return page_file("index.html")


@router.get("/page/{name}", include_in_schema=False)
async def send_file(name: str) -> Response:
    """A file of the page."""
    return page_file(name)


def page_file(name: str) -> Response:
    """A file of the folder, and of nowhere else: only names that are there count."""
    files = {path.name: path for path in FOLDER.iterdir() if path.suffix in KINDS} if FOLDER.is_dir() else {}
    if name not in files:
        raise ApiError(404, "Found no such file of the page.", "not_found_error", code=ROUTE_NOT_FOUND)
    return FileResponse(files[name], media_type=KINDS[files[name].suffix], headers=HEADERS)
