"""The parts of a server that its endpoints share."""

from __future__ import annotations

import time
from dataclasses import dataclass

from semhitok.inference.served_model import ServedModel
from semhitok.server.admission import Admission
from semhitok.server.bodies import BodyReader
from semhitok.server.engine import Engine
from semhitok.server.errors import UNKNOWN, ApiError, shortened
from semhitok.server.images import ImageReader
from semhitok.server.metrics import Metrics
from semhitok.server.settings import Limits


@dataclass
class State:
    """A server at work.

    Attributes:
        name: under which the model is served.
        created: when the server started, in seconds since 1970.
    """

    name: str
    model: ServedModel
    limits: Limits
    created: int
    metrics: Metrics
    engine: Engine
    admission: Admission
    bodies: BodyReader
    images: ImageReader

    @classmethod
    def of(cls, name: str, model: ServedModel, limits: Limits) -> State:
        """A server that has not started yet."""
        metrics = Metrics()
        engine = Engine(model, batch_size=limits.batch_size, metrics=metrics)
        admission = Admission(limits.capacity)
        metrics.accepted.set_function(lambda: admission.held)
        return cls(
            name, model, limits, int(time.time()), metrics, engine, admission, BodyReader(limits), ImageReader(model)
        )

    def check_model(self, name: str | None, *, language: bool) -> None:
        """Refuse the name of another model, and texts if there is only an image tokenizer."""
        if name is not None and name != self.name:
            message = f"there is no model {shortened(name, 100)!r}, this server has {self.name!r}"
            raise ApiError(404, message, kind=UNKNOWN, param="model", code="model_not_found")
        if language and self.model.language is None:
            message = f"the model {self.name!r} is an image tokenizer, only /v1/tokenize and /v1/detokenize accept it"
            raise ApiError(400, message, param="model", code="unsupported_model")

    def check_images(self, count: int, param: str) -> None:
        """Refuse too many images for one request."""
        if count > self.limits.max_images:
            message = f"{param}: a request may have at most {self.limits.max_images} images, got {count}"
            raise ApiError(400, message, param=param, code="too_many_images")
