"""Answers that first contacts have learned: the last one of each question, by campaign."""

from sqlalchemy import Connection

from db.learned_answers import get_answers, record_answer


def test_the_last_answer_of_each_question_counts(connection: Connection) -> None:
    """A campaign has its own; an answer that changed is recorded in place of the earlier one."""
    record_answer(connection, "C1", "bounds", "inclusive")
    record_answer(connection, "C1", "disable", "HTTP 201")
    record_answer(connection, "C2", "bounds", "unknown")
    record_answer(connection, "C1", "bounds", "exclusive")
    assert get_answers(connection, "C1") == {"bounds": "exclusive", "disable": "HTTP 201"}
    assert get_answers(connection, "C2") == {"bounds": "unknown"}
    assert get_answers(connection, "C3") == {}
