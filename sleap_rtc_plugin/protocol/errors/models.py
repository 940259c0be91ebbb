"""What can go wrong with the models of a room: registry, files, live frames."""

from dataclasses import dataclass

from sleap_rtc_plugin.protocol.errors.base import (
    EXIT_BAD_PACKAGE,
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    RtcError,
)


class ModelError(RtcError):
    """The room's models, or what was asked of them."""

    exit_code = EXIT_REFUSED


# -- which model ---------------------------------------------------------------


@dataclass(eq=False)
class ModelNotFound(ModelError):
    """No model has this alias or id, or lies at this path."""

    model: str
    code = "model_not_found"
    sentence = (
        "There is no model {model} in this room; `sleap-remote models list` shows "
        "those that there are."
    )


@dataclass(eq=False)
class ModelAmbiguous(ModelError):
    """Several models are called so: by their aliases, or the beginnings of their ids.

    Workers with registries of their own may know different models by one alias.
    """

    model: str
    candidates: str
    code = "model_ambiguous"
    sentence = (
        "{model} may be any of {candidates}; name it by its whole id, or its worker "
        "with --worker."
    )


@dataclass(eq=False)
class NotAModel(ModelError):
    """A folder holds no model that sleap-nn could load."""

    path: str
    reason: str
    code = "not_a_model"
    exit_code = EXIT_BAD_PACKAGE
    sentence = (
        "{path} is not a trained model ({reason}); name the folder below models/ that "
        "holds best.ckpt and training_config.yaml."
    )


@dataclass(eq=False)
class ModelTooNew(ModelError):
    """The worker's sleap-nn is older than the one that trained the model."""

    model: str
    needed: str
    worker: str
    found: str
    code = "model_too_new"
    sentence = (
        "The model {model} was trained with sleap-nn {needed}, and the worker {worker} "
        "has {found}; update sleap-nn there, or choose another worker."
    )


# -- changing the registry -----------------------------------------------------


@dataclass(eq=False)
class AliasTaken(ModelError):
    """The alias belongs to another model."""

    alias: str
    model: str
    code = "alias_taken"
    sentence = (
        "The alias {alias} belongs to {model}; choose another one, or move it with "
        "--move-alias."
    )


@dataclass(eq=False)
class AliasMoved(ModelError):
    """Somebody moved the alias in the meantime."""

    alias: str
    model: str
    code = "alias_moved"
    sentence = (
        "Somebody pointed the alias {alias} to {model} in the meantime; look at it "
        "with `sleap-remote models show` and decide again."
    )


@dataclass(eq=False)
class ModelHasAlias(ModelError):
    """A model that people use by name would be deleted."""

    model: str
    aliases: str
    code = "model_has_alias"
    sentence = (
        "The model {model} is used as {aliases}; delete it with --force if nobody "
        "needs it any more."
    )


@dataclass(eq=False)
class RegistryFull(ModelError):
    """A bound of the registry would be passed."""

    what: str
    limit: str
    code = "registry_full"
    sentence = (
        "The registry holds no more {what} than {limit}; delete some that nobody "
        "needs with `sleap-remote models delete`."
    )


# -- the store -----------------------------------------------------------------


@dataclass(eq=False)
class StoreInvalid(ModelError):
    """The address of a store cannot be used."""

    store: str
    reason: str
    code = "store_invalid"
    exit_code = EXIT_USAGE
    sentence = (
        "The model store {store} cannot be used: {reason}; name a folder, or "
        "s3://BUCKET/PREFIX with ?endpoint=URL for other servers than AWS."
    )


@dataclass(eq=False)
class StoreUnreachable(ModelError):
    """The store does not answer, or not in time."""

    store: str
    reason: str
    code = "store_unreachable"
    exit_code = EXIT_UNREACHABLE
    retryable = True
    sentence = (
        "The model store {store} cannot be reached ({reason}); check its address, the "
        "network and the credentials, and try again."
    )


@dataclass(eq=False)
class StoreReadOnly(ModelError):
    """The store refuses to be written to."""

    store: str
    reason: str
    code = "store_read_only"
    sentence = (
        "The model store {store} cannot be written to ({reason}); nothing was "
        "changed, ask whoever runs it for the right to write."
    )


@dataclass(eq=False)
class StoreFull(ModelError):
    """The store has no room for a model."""

    store: str
    reason: str
    code = "store_full"
    sentence = (
        "The model store {store} has no room left ({reason}); nothing was published, "
        "remove models that nobody needs and run `sleap-remote models gc`."
    )


@dataclass(eq=False)
class RegistryDamaged(ModelError):
    """The manifest cannot be read; nothing writes over it."""

    store: str
    reason: str
    code = "registry_damaged"
    sentence = (
        "The list of models in {store} is damaged ({reason}); nothing was changed, put "
        "back an earlier manifest.json or correct it by hand."
    )


@dataclass(eq=False)
class RegistryTooNew(ModelError):
    """A newer version of the program wrote the manifest."""

    store: str
    version: str
    code = "registry_too_new"
    sentence = (
        "The list of models in {store} has version {version}, which this program does "
        "not know; update sleap-rtc-plugin here."
    )


@dataclass(eq=False)
class RegistryBusy(ModelError):
    """Others changed the registry each time that we tried."""

    store: str
    code = "registry_busy"
    retryable = True
    sentence = (
        "Too many others change the models in {store} at once; nothing was changed, "
        "try again in a moment."
    )


@dataclass(eq=False)
class NoStore(ModelError):
    """There is neither a store here nor a worker that has one."""

    reason: str
    code = "no_store"
    exit_code = EXIT_UNREACHABLE
    sentence = (
        "The room's models cannot be reached ({reason}); start a worker, or name their "
        "store with --store."
    )


@dataclass(eq=False)
class ModelDamaged(ModelError):
    """A file of a model is not what the registry says."""

    model: str
    file: str
    reason: str
    code = "model_damaged"
    sentence = (
        "{file} of the model {model} is damaged in the store ({reason}) and was not "
        "used; publish the model again from where it was trained."
    )


# -- live frames ---------------------------------------------------------------


@dataclass(eq=False)
class LiveRefused(ModelError):
    """The worker does not take live frames, or not these."""

    worker: str
    reason: str
    code = "live_refused"
    sentence = (
        "The worker {worker} takes no live frames ({reason}); choose another worker or "
        "model."
    )


@dataclass(eq=False)
class LiveEnded(ModelError):
    """The worker ended a live session that had begun."""

    worker: str
    reason: str
    code = "live_ended"
    retryable = True
    sentence = (
        "The worker {worker} ended the live session ({reason}); start it again, and "
        "look at the worker's log if it ends again."
    )


@dataclass(eq=False)
class VideoUnreadable(ModelError):
    """A video or camera gives no frames."""

    video: str
    reason: str
    code = "video_unreadable"
    exit_code = EXIT_BAD_PACKAGE
    sentence = (
        "{video} gives no frames ({reason}); check the path or the number of the "
        "camera."
    )
