"""`llamita serve`: a model behind OpenAI's API. Flags only; serve/ does it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamita.cli import debug_option
from llamita.cli.adapter_option import adapter_option, name_with
from llamita.cli.sampling_options import engine_options
from llamita.cli.template_option import template_option, template_source
from llamita.serve.settings import MAX_DRAIN_SECONDS

if TYPE_CHECKING:
    from llamita.serve.served_model import ServedModel
    from llamita.serve.settings import Settings


@click.command("serve", context_settings={"show_default": True})
@click.argument("model", default="stories")
@click.option("--host", default="127.0.0.1", help="The address to listen at; others than this machine's own want --api-key.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, help="0 takes a free one.")
@click.option(
    "--api-key", metavar="KEY", default="", envvar="LLAMITA_API_KEY", show_envvar=True,
    help="Serve only who sends this key; better in the environment, where others do not see it.",
)  # fmt: skip
@click.option("--insecure", is_flag=True, help="Serve other machines without a key.")
@click.option("--allowed-host", metavar="NAME", multiple=True, help="A name by which clients may call this machine; *: any.")
@click.option("--cors-origin", metavar="URL", multiple=True, help="Let pages of this origin call, such as https://me.example.")
@click.option("--alias", metavar="NAME", default=None, help="What clients call the model; else as MODEL is called.")
@click.option("--strict-model", is_flag=True, help="Refuse requests that call the model by another name.")
@click.option("-z", "--tokenizer", metavar="PATH", default=None, help="Its tokenizer; else the one beside the model.")
@adapter_option
@template_option("Its")
@click.option("--slots", type=click.IntRange(1, 256), default=8, help="Texts that are written at once.")
@click.option("--max-queue", type=click.IntRange(0), default=64, help="Texts that may wait; more are refused with 429.")
@click.option(
    "--drain", metavar="SECONDS", type=click.FloatRange(0, MAX_DRAIN_SECONDS), default=30.0, help="What answers get to end in."
)
@engine_options
@debug_option
def command(model: str, tokenizer: str | None, alias: str | None, **flags) -> None:
    """Serve MODEL (a file, a folder or the name of a bundled model) to OpenAI's clients and to the browser.

    Needs the extra: pip install "llamita[serve]".

    \b
        llamita serve
        curl http://127.0.0.1:8080/v1/completions -H "Content-Type: application/json" \\
            -d '{"prompt": "Once upon a time", "max_tokens": 64}'
    """
    from llamita.language_model import find_model
    from llamita.serve.settings import Settings

    path = find_model(model)
    check_files(path, tokenizer, flags["adapter"])
    settings = Settings(
        name=alias or name_with(name_of(model), flags["adapter"]),
        host=flags["host"],
        port=flags["port"],
        api_key=flags["api_key"],
        insecure=flags["insecure"],
        cors_origins=flags["cors_origin"],
        allowed_hosts=flags["allowed_host"],
        template=template_source(flags["template"]),
        strict_model=flags["strict_model"],
        drain_seconds=flags["drain"],
    ).validate()

    def open_model() -> "ServedModel":
        from llamita.formats import read_model
        from llamita.serve.scheduler import Scheduler
        from llamita.serve.served_model import open_served

        opened = read_model(path, tokenizer, flags["dtype"], flags["adapter"])
        scheduler = Scheduler(opened, flags["threads"], flags["context"], flags["slots"], flags["max_queue"])
        return open_served(opened, settings, scheduler)

    serve(settings, open_model)


def serve(settings: "Settings", open_model: Callable[[], "ServedModel"]) -> None:
    """Bind, say where, load and serve."""
    from llamita.errors import SettingError

    try:
        from llamita.serve.server import DrainingServer, bind, url_of
        from llamita.serve.service import Service
    except ModuleNotFoundError as error:
        raise SettingError(f'found no {error.name}, which the server needs: pip install "llamita[serve]"') from None

    def say(line: str) -> None:
        click.echo(f"llamita: {line}", err=True)

    with bind(settings.host, settings.port) as listener:
        say(f"serving {settings.name} at {url_of(listener)}; Ctrl-C ends it")
        DrainingServer(Service(settings, open_model), say).serve_at(listener)


def check_files(*paths: str | Path | None) -> None:
    """Raise ModelFileError for a file that is not there, before anybody is told an address; folders are looked into later."""
    from llamita.files import map_file

    for path in paths:
        if path is not None and not Path(path).is_dir():
            map_file(path).close()


def name_of(model: str) -> str:
    """What clients call a model that has no alias: a file without its ending, a folder or a bundled model as it is called."""
    path = Path(model)
    return (path.stem if path.is_file() else path.name) or "model"
