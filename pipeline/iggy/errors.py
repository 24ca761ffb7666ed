"""What Iggy answers when it refuses, or does not answer."""

from pipeline.errors import PipelineError


class IggyError(PipelineError):
    """Iggy refused, or can't be reached. Worth trying again unless it is `IggyRefused`."""


class IggyMissing(IggyError):
    """Iggy answered: there is no such stream, topic, partition or membership. Perhaps there will be."""


class IggyUnreachable(IggyError):
    """No connection could be made."""


class IggyRefused(IggyError):
    """Iggy answered, and trying again won't help: wrong credentials."""
