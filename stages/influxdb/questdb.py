"""Warnings about tables of QuestDB that store a row twice if it is written twice. Pure.

Source: questdb.com/docs/concepts/deduplication; recorded answers of QuestDB 9.3.4.
"""

from collections.abc import Mapping
from typing import Any

#: The query for `/exec`.
TABLES_QUERY = "SELECT table_name, dedup FROM tables()"
#: Most tables that a warning names.
MAX_NAMED = 5
_WHY = ("stores a row twice that is written twice, which happens after a crash or a lost answer; to have it "
        "once: ")
_HOW = "ALTER TABLE '{}' DEDUP ENABLE UPSERT KEYS(timestamp, <the tags>)"


def tables_of(answer: Mapping[str, Any]) -> dict[str, bool] | None:
    """The tables, and whether they have DEDUP UPSERT KEYS; None for an error, such as that of an old version."""
    rows = answer.get("dataset")
    if not isinstance(rows, list):
        return None
    return {str(row[0]): row[1] for row in rows if isinstance(row, list) and len(row) == 2 and type(row[1]) is bool}


def dedup_warnings(tables: Mapping[str, bool] | None, measurement: str) -> list[str]:
    """The warnings for the start. `measurement`: the only one that is written; "" if there may be several."""
    if tables is None:
        return [f"QuestDB does not report which tables have DEDUP; one without {_WHY}{_HOW.format('<table>')}"]
    if measurement:
        found = next((name for name in tables if name.lower() == measurement.lower()), None)
        if found is not None and tables[found]:
            return []
        state = "" if found is not None else ", which QuestDB will create without DEDUP at the first row,"
        return [f"table {measurement}{state} {_WHY}{_HOW.format(measurement)}"]
    without = sorted(name for name, dedup in tables.items() if not dedup and not name.startswith(("sys.", "telemetry")))
    named = ", ".join(without[:MAX_NAMED]) + (f" and {len(without) - MAX_NAMED} more" if len(without) > MAX_NAMED
                                               else "")
    there = f" (there are {named})" if without else ""
    return [f"a table without DEDUP UPSERT KEYS{there} {_WHY}{_HOW.format('<table>')}; "
            "QuestDB creates new tables without"]
