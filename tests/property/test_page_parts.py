"""Large pages come to produce in parts: whatever attempts are made, those of one are sent in order, and to the end."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.points.table import Column, Table
from pipeline.wire import source as source_wire
from stages.produce.pages import Page, PageQueue

MEASUREMENT = source_wire.MeasurementId(0, "m")


def part_of(seq: int, attempt: int, number: int, parts: int) -> Page:
    """A part of page `seq`, which ends at the time seq + 1."""
    id_ = source_wire.PageId(1, MEASUREMENT, seq, attempt, 0, (0, seq))
    return Page(source_wire.Messages(id_, seq + 1, 0, 0, [], b"", 0, number, number == parts - 1), b"12345678")


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=12),
       st.lists(st.booleans(), min_size=60, max_size=60), st.booleans())
def test_parts_are_sent_in_order_and_a_page_ends_with_its_last(
        attempts: list[tuple[int, int, int]], pops: list[bool], in_order: bool) -> None:
    queue = PageQueue(in_order)
    queue.position = 0, 0
    #: The newest attempt at each page is whole; earlier ones may have lost their end.
    tried: dict[int, int] = {}
    popped: list[source_wire.Messages] = []

    def send(all_of_it: bool) -> None:
        while (page := queue.pop()) is not None:
            popped.append(page.head)
            queue.sent(page)
            if not all_of_it:
                break

    arrivals = [(seq, parts, min(lost, parts)) for seq, parts, lost in attempts]
    arrivals += [(seq, 3, 3) for seq in range(3)]
    for seq, parts, arriving in arrivals:
        tried[seq] = tried.get(seq, -1) + 1
        for number in range(arriving):
            queue.add(part_of(seq, tried[seq], number, parts))
            if pops and pops.pop():
                send(all_of_it=False)
    send(all_of_it=True)
    assert queue.size == 0 and queue.pop() is None
    for seq in range(3):
        own = [head for head in popped if head.id.seq == seq]
        assert own and own[-1].is_last and own[-1].id.attempt == tried[seq]
        for before, after in zip([None, *own], own, strict=False):
            assert after.part == 0 or before is not None and (before.id, before.part + 1) == (after.id, after.part)
    if in_order:
        ends = [head.id.seq for head in popped if head.is_last]
        assert [seq for index, seq in enumerate(ends) if seq not in ends[:index]] == [0, 1, 2]


@given(st.integers(0, 50), st.integers(1, 20))
def test_a_table_is_divided_into_pieces(rows: int, size: int) -> None:
    table = Table("m", (Column("f", "field", "float"),), [(n, 1.0) for n in range(rows)], [])
    pieces = list(table.pieces(size))
    assert [row for piece in pieces for row in piece.rows] == table.rows and pieces
    assert all(len(piece.rows) <= size for piece in pieces)
