"""The typed errors a user can meet, each with the exit code of the process that ends with it.

Bad input (a setting, a file, a name) exits with 2; a failure of the work itself exits with 1.
"""


class GlintruError(Exception):
    """Root of the tree. The message is one line: the thing, the value found, what is allowed."""

    exit_code = 1


class InputError(GlintruError):
    """What the user gave cannot be used."""

    exit_code = 2


class ConfigError(InputError):
    """A setting is unknown, of the wrong type or outside its bounds."""


class DataError(InputError):
    """An interaction log (or a file derived from one) cannot be used."""


class ChecksumError(DataError):
    """A file's bytes are not the bytes that were promised."""


class StorageError(GlintruError):
    """A local disk, an object store or a download failed."""


class TrainingError(GlintruError):
    """Training cannot go on, e.g. the loss is not finite."""


class TrackingError(GlintruError):
    """MLflow (tracking or registry) or the study's storage refused or is not reachable."""


class PipelineError(GlintruError):
    """A pipeline task failed, or the pipeline could not be submitted."""
