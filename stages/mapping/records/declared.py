"""The types that `mapping.types` declares, by path and by pattern. Pure."""

from collections.abc import Mapping

from pipeline.config.mapping_schema import DeclaredType
from pipeline.config.patterns import compiled, is_pattern


class DeclaredTypes:
    """Finds the type of a path: that of the path itself, or else of the first pattern that matches it."""

    def __init__(self, types: Mapping[str, DeclaredType]) -> None:
        self._exact = {path: declared for path, declared in types.items() if not is_pattern(path)}
        self._patterns = [(compiled(pattern), declared) for pattern, declared in types.items() if is_pattern(pattern)]
        #: Whether a pattern declares values to be JSON texts.
        self.has_json_patterns = "json" in [declared for _, declared in self._patterns]

    def of(self, path: str) -> DeclaredType | None:
        """The declared type of the field at a path; None if it has none."""
        declared = self._exact.get(path)
        if declared is None:
            for matches, kind in self._patterns:
                if matches(path):
                    return kind
        return declared
