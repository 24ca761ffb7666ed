"""What the schema's comments say about each key: the text of the reference, of the JSON Schema and of new files."""

import ast
import functools
import inspect

import msgspec


@functools.cache
def descriptions(struct: type) -> dict[str, str]:
    """Field -> its `#:` comment, from the source of the class and of those that it inherits from."""
    found: dict[str, str] = {}
    for part in reversed(struct.__mro__):
        if not issubclass(part, msgspec.Struct) or part is msgspec.Struct:
            continue
        lines = inspect.getsource(part).split("\n")
        (definition,) = ast.parse("\n".join(lines)).body
        assert isinstance(definition, ast.ClassDef)
        for statement in definition.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                above: list[str] = []
                at = statement.lineno - 2
                while lines[at].strip().startswith("#:"):
                    above.insert(0, lines[at].strip()[2:].strip())
                    at -= 1
                if above:
                    found[statement.target.id] = " ".join(above)
    return found


def purpose(struct: type) -> tuple[str, str]:
    """The table's name, such as "[influxdb]", and what it is for, from its docstring."""
    title, _, text = " ".join((inspect.getdoc(struct) or "").partition("\n\n")[0].split()).partition(":")
    return title.strip("`"), text.strip()
