"""The members of a generation as a table, sorted and cut into pages where they lie: in SQLite."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from vmaptune.errors import StoreError, did_you_mean
from vmaptune.store.folder import RunFolder
from vmaptune.store.history import connect, quoted

PAGE = 100


def read_members(folder: RunFolder, *, sort: str = "fitness", descending: bool = True, page: int = 0) -> dict[str, Any]:
    """One page of the newest generation's members.

    Args:
        folder: The run.
        sort: A column of the history; members without a value come last, whichever way it is sorted.
        descending: Largest first.
        page: From 0; `PAGE` members each.

    Returns:
        `generation` (-1: none yet), `total`, `page`, `pages`, `columns`, and `rows` in the order of the columns.

    Raises:
        StoreError: There is no such column, or the history cannot be read.
    """
    with closing(connect(folder.history)) as db:
        columns = [row["name"] for row in db.execute("PRAGMA table_info(record)") if row["name"] != "generation"]
        if sort not in columns:
            raise StoreError(f"{sort!r}: no such column{did_you_mean(sort, columns)}")
        generation = db.execute("SELECT coalesce(max(generation), -1) FROM record").fetchone()[0]
        total = db.execute("SELECT count(*) FROM record WHERE generation = ?", (generation,)).fetchone()[0]
        pages = max(1, -(-total // PAGE))
        page = min(max(page, 0), pages - 1)
        order = f"{quoted(sort)} IS NULL, {quoted(sort)} {'DESC' if descending else 'ASC'}, slot"
        shown = ", ".join(quoted(column) for column in columns)
        query = f"SELECT {shown} FROM record WHERE generation = ? ORDER BY {order} LIMIT ? OFFSET ?"
        rows = [list(row) for row in db.execute(query, (generation, PAGE, page * PAGE))]
    return {"generation": generation, "total": total, "page": page, "pages": pages, "columns": columns, "rows": rows}
