"""Errors of Iggy: it refused a request, or did not answer."""

from pipeline.errors import PipelineError


class IggyError(PipelineError):
    """Iggy refused a request, or cannot be reached. Can be retried, except `IggyAuthenticationFailed`."""


class IggyNotFound(IggyError):
    """Iggy answered that the stream, topic, partition or membership does not exist. It may be created later."""


class IggyUnreachable(IggyError):
    """No connection could be made."""


class IggyForbidden(IggyError):
    """The user lacks a right, which the text names. It may be granted later."""


class IggyAuthenticationFailed(IggyError):
    """Iggy rejected the credentials: retrying does not help until they are changed."""
