"""Which points of a measurement are read, by their tags, and which of their fields: conditions in each language. Pure.

A tag that a point does not have is the empty text. A pattern does not match it, the value "" does.
"""

from collections.abc import Callable, Collection

from msgspec import Struct

from pipeline.config.patterns import is_pattern, matches_any
from pipeline.config.regexes import regex_of
from pipeline.config.source_schema import SourceConfig


class TagCondition(Struct, frozen=True):
    """The values that a tag must have, or, with `exclude`, must not have."""

    tag: str
    #: Names and patterns, none of them empty.
    values: tuple[str, ...]
    #: A missing tag is one of them.
    or_missing: bool
    exclude: bool


class Choice(Struct, frozen=True):
    """What a source reads of its measurements."""

    tags: tuple[TagCondition, ...] = ()
    fields: tuple[str, ...] = ("*",)
    exclude_fields: tuple[str, ...] = ()

    def has_field(self, name: str) -> bool:
        """Whether a field is read."""
        return matches_any(name, self.fields) and not matches_any(name, self.exclude_fields)


EVERYTHING = Choice()


def choice_of(config: SourceConfig) -> Choice:
    """What a source reads."""
    conditions = [TagCondition(tag, tuple(filter(None, values)), "" in values, exclude)
                  for exclude, chosen in ((False, config.tag_values), (True, config.exclude_tag_values))
                  for tag, values in chosen.items()]
    return Choice(tuple(conditions), config.fields, config.exclude_fields)


def influxql_conditions(choice: Choice, quoted: Callable[[str], str]) -> list[str]:
    """The conditions on tags in InfluxQL. `::tag`, since a field may have the same name."""
    found = []
    for one in choice.tags:
        tag = f"{quoted(one.tag)}::tag"
        parts = [f"{tag} {'!~' if one.exclude else '=~'} /{regex_of(one.values)}/"] if one.values else []
        parts += [f"{tag} {'!=' if one.exclude else '='} ''"] if one.or_missing else []
        found.append(parts[0] if len(parts) == 1 else f"({(' AND ' if one.exclude else ' OR ').join(parts)})")
    return found


def flux_filter(choice: Choice, literal: Callable[[str], str]) -> str:
    """The further lines of a Flux query, each a filter; "" if everything is read."""
    conditions = []
    for one in choice.tags:
        tag = f"r[{literal(one.tag)}]"
        parts = [f"{tag} =~ /{regex_of(one.values)}/"] if one.values and not one.exclude else []
        if one.exclude:
            parts = [f"(not exists {tag} or {tag} !~ /{regex_of(one.values)}/)"] if one.values else []
        parts += [f"exists {tag}" if one.exclude else f"not exists {tag}"] if one.or_missing else []
        conditions.append((" and " if one.exclude else " or ").join(parts))
    for patterns, operator in ((choice.fields, "=~"), (choice.exclude_fields, "!~")):
        if patterns and patterns != ("*",):
            conditions.append(f"r._field {operator} /{regex_of(patterns)}/")
    return "".join(f"  |> filter(fn: (r) => {condition})\n" for condition in conditions)


def sql_conditions(choice: Choice, tags: Collection[str], identifier: Callable[[str], str],
                   literal: Callable[[str], str]) -> list[str]:
    """The conditions in SQL. A measurement has only some `tags`; a column that it does not have may not be named."""
    found = []
    for one in choice.tags:
        if one.tag not in tags:
            if one.or_missing == one.exclude:
                found.append("FALSE")
            continue
        column = identifier(one.tag)
        parts = [f"{column} LIKE {literal(_like(value))}" if is_pattern(value) else f"{column} = {literal(value)}"
                 for value in one.values]
        if one.exclude:
            parts = [f"({column} IS NULL OR NOT ({' OR '.join(parts)}))"] if parts else []
            parts += [f"{column} <> ''"] if one.or_missing else []
            found.append(" AND ".join(parts))
        else:
            parts += [f"{column} IS NULL", f"{column} = ''"] if one.or_missing else []
            found.append(f"({' OR '.join(parts)})")
    return found


def _like(pattern: str) -> str:
    """A pattern for LIKE, which has % and _, and a backslash before those that stand for themselves."""
    if not pattern.strip("*"):
        return "_%"
    return "".join([{"*": "%", "?": "_", "%": "\\%", "_": "\\_", "\\": "\\\\"}.get(character, character)
                    for character in pattern])
