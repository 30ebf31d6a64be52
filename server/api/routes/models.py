"""The models of the config."""

from __future__ import annotations

from server.api.lists import list_models, retrieve_model
from server.api.operation import Operation, Tag
from server.errors import ModelNotFound

MODELS = (
    Operation(
        method="GET",
        path="/models",
        handler=list_models,
        summary="List the models that the caller may use",
        tag=Tag.MODELS,
        answer="ListModelsResponse",
    ),
    Operation(
        method="GET",
        path=r"/models/{id:[\s\S]*[^/]}",
        handler=retrieve_model,
        summary="Retrieve a model",
        tag=Tag.MODELS,
        details="Its name may contain slashes.",
        answer="Model",
        errors=(ModelNotFound,),
    ),
)
