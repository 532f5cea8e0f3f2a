"""The dial of plan and train as flags: a size, a published recipe, or the hours that there are."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


class Count(click.ParamType):
    """A whole number that may end in K, M or B: 15M, 1.1B."""

    name = "COUNT"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number, or a usage error."""
        text = str(value).upper()
        unit = text[-1:] if text[-1:] in UNITS else ""
        try:
            return round(float(text.removesuffix(unit).replace(",", "")) * UNITS[unit])
        except (ValueError, OverflowError):
            self.fail(f"found {value!r}, expected a number such as 15M or 260000", param, ctx)


def dial_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb --params, --preset and --hours; its function gets them as `dial`, a train.sizing.Dial."""

    @wraps(command)
    def with_dial(*arguments: Any, params: int | None, preset: str | None, hours: float | None, **flags: Any) -> Any:
        from llamita.train.sizing import Dial

        return command(*arguments, dial=Dial(params, preset, hours).validate(), **flags)

    chosen: Callable[..., Any] = with_dial
    chosen = click.option("--hours", type=float, default=None, help="The time that there is.")(chosen)
    help_text = "A published recipe: 260K, 15M, 42M, 110M, 1.1B or 7B."
    chosen = click.option("--preset", metavar="NAME", default=None, help=help_text)(chosen)
    return click.option("--params", type=Count(), default=None, help="Parameters, such as 15M; the shape follows.")(chosen)
