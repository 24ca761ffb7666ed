"""Warns about tables of a QuestDB that store rows twice if they are written twice. Pure.

Source: questdb.com/docs/concepts/deduplication; recorded answers of QuestDB 9.3.4.
"""

from collections.abc import Mapping
from typing import Any

#: The query for `/exec`.
TABLES = "SELECT table_name, dedup FROM tables()"
#: Most tables that a warning names.
MOST_NAMED = 5
_WHY = ("stores rows twice that are written twice, which happens after a crash or a lost answer; to store them once: ")
_HOW = "ALTER TABLE '{}' DEDUP ENABLE UPSERT KEYS(timestamp, <the tags>)"


def tables_of(answer: Mapping[str, Any]) -> dict[str, bool] | None:
    """Table -> whether it has DEDUP UPSERT KEYS; None for another answer: of an old version, or a refusal."""
    rows = answer.get("dataset")
    if not isinstance(rows, list):
        return None
    return {str(row[0]): row[1] for row in rows if isinstance(row, list) and len(row) == 2 and type(row[1]) is bool}


def dedup_warnings(tables: Mapping[str, bool] | None, measurement: str) -> list[str]:
    """The warnings at the start; `measurement`: the one that is written, "" if there may be several."""
    if tables is None:
        return [f"QuestDB does not report which tables have DEDUP; a table without {_WHY}{_HOW.format('<table>')}"]
    if measurement:
        found = next((name for name in tables if name.lower() == measurement.lower()), None)
        if found is not None and tables[found]:
            return []
        state = "" if found is not None else ", which QuestDB will create without DEDUP at the first row,"
        return [f"table {measurement}{state} {_WHY}{_HOW.format(measurement)}"]
    without = sorted(name for name, dedup in tables.items() if not dedup and not name.startswith(("sys.", "telemetry")))
    named = ", ".join(without[:MOST_NAMED]) + (f" and {len(without) - MOST_NAMED} more" if len(without) > MOST_NAMED
                                               else "")
    there = f" (there are {named})" if without else ""
    return [f"a table without DEDUP UPSERT KEYS{there} {_WHY}{_HOW.format('<table>')}; "
            "QuestDB creates new tables without it"]
