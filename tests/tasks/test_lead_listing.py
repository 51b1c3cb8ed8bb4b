"""The order and the bound of pages ahead; tests/tasks/test_audit.py is about listings."""

from collections.abc import Iterator

from tasks.lead_listing import map_bounded
from tasks.thread_pool import open_threads


def test_results_come_in_order_with_a_bounded_number_of_items_ahead() -> None:
    """The memory of an audit does not grow with the number of pages."""
    begun = list[int]()

    def numbers() -> Iterator[int]:
        for number in range(50):
            begun.append(number)
            yield number

    with open_threads(3, on_stop=lambda: None) as pool:
        for done, result in enumerate(map_bounded(pool, lambda number: number * 2, numbers())):
            assert result == 2 * done
            assert len(begun) - done <= 6
