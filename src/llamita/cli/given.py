"""Which flags of the running verb stand in its call: a run that goes on is compared with these, and not with defaults."""

from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Those flags that the user wrote, be it with their default value. flags: values by parameter."""
    source_of = click.get_current_context().get_parameter_source
    return {name: value for name, value in flags.items() if source_of(name) is not ParameterSource.DEFAULT}
