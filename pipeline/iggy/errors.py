"""What Iggy answers when it refuses, or does not answer."""

from pipeline.errors import PipelineError


class IggyError(PipelineError):
    """Iggy refused, or can't be reached. Worth trying again unless it is `IggyAuthenticationFailed`."""


class IggyNotFound(IggyError):
    """Iggy answered: there is no such stream, topic, partition or membership. Perhaps there will be."""


class IggyUnreachable(IggyError):
    """No connection could be made."""


class IggyAuthenticationFailed(IggyError):
    """Iggy answered, and trying again won't help: wrong credentials."""
