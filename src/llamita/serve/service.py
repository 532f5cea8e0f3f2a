"""Service: the served model and where it stands, from loading to draining. One for each server; every route asks it.

Knows no HTTP besides the errors that it raises.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Literal

from llamita.serve.errors import model_not_found, unavailable
from llamita.serve.metrics import Metrics
from llamita.serve.served_model import ServedModel
from llamita.serve.settings import Settings

Phase = Literal["loading", "ready", "draining", "failed"]
logger = logging.getLogger(__name__)


class Service:
    """open_model: opens the model, in a thread of its own; failure: what it raised, for whoever started the server."""

    def __init__(self, settings: Settings, open_model: Callable[[], ServedModel]) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.failure: Exception | None = None
        self._open_model = open_model
        self._model: ServedModel | None = None
        self._is_draining = False

    @property
    def phase(self) -> Phase:
        """Where the service stands."""
        if self._is_draining:
            return "draining"
        if self._model is None:
            return "loading" if self.failure is None else "failed"
        return "ready" if self._model.scheduler.is_alive else "failed"

    @property
    def model(self) -> ServedModel:
        """The model, once it is there; raises ApiError 503 before and afterwards."""
        if self._model is None or self.phase != "ready":
            raise unavailable("loading" if self.phase == "ready" else self.phase)
        return self._model

    @property
    def opened(self) -> ServedModel | None:
        """The model, also while the service drains."""
        return self._model

    def model_for(self, name: str) -> ServedModel:
        """The model for a request that calls it so; raises ApiError 404 where only its own name will do."""
        model = self.model
        if self.settings.strict_model and name and name != model.name:
            raise model_not_found(name)
        return model

    async def load(self) -> None:
        """Open the model; afterwards the service is ready, or failed."""
        try:
            self._model = await asyncio.to_thread(self._open_model)
        except Exception as error:
            self.failure = error

    async def drain(self, seconds: float) -> bool:
        """Take on nothing more and let running answers end; whether they did within so many seconds."""
        self._is_draining = True
        model = self._model
        return model is None or await asyncio.to_thread(model.scheduler.drain, seconds)

    async def close(self) -> None:
        """End what is left."""
        self._is_draining = True
        if self._model is not None:
            await asyncio.to_thread(self._model.scheduler.close)
