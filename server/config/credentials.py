"""Named credentials: entries of `credential_list`, which several deployments of `model_list` may share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from server.config.sections import ConfigError, Credential, LiteLLMParams, ModelEntry


def with_credential(
    entry: ModelEntry, credentials: Sequence[Credential], unset: Mapping[str, Mapping[str, Sequence[str]]]
) -> ModelEntry:
    """The entry with the values of the credential that it names, where it has none of its own, as in LiteLLM.

    `unset` has, for the name of a credential and each of its keys, the environment variables that are not set.

    Raises:
        ConfigError: a value is not of the kind that the parameter must have

    """
    name = entry.litellm_params.litellm_credential_name
    if name is None:
        return entry
    found = next((credential for credential in credentials if credential.credential_name == name), None)
    if found is None:
        # LiteLLM would call the provider without a credential, which refuses it with a message about something else.
        entry.flawed(f"credential_list has no '{name}', which litellm_params.litellm_credential_name says")
        return entry
    written = entry.litellm_params.as_written
    own = {key: value for key, value in written.items() if value is not None}
    try:
        params = LiteLLMParams.model_validate({**found.credential_values, **own})
    except ValidationError as error:
        complaints = (f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors())
        raise ConfigError(
            "\n".join(f"credential_list: the values of '{name}': {said}" for said in complaints)
        ) from error
    # LiteLLM's id of the deployment does not depend on what the credential holds.
    params.written_as(written)
    lent = entry.model_copy(update={"litellm_params": params})
    missing = (variable for key, names in unset.get(name, {}).items() if key not in own for variable in names)
    lent.lacking((*entry.unset, *missing))
    return lent
