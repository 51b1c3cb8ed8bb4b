"""Learned answers: what a first contact has found out about the vendor, for people to read."""

from collections.abc import Mapping

from sqlalchemy import Connection, text

_RECORD = text("""
INSERT INTO leadloop.learned_answers (campaign_id, question, answer)
VALUES (:campaign, :question, :answer)
ON CONFLICT (campaign_id, question) DO UPDATE
   SET answer = excluded.answer, learned_at = clock_timestamp()
""")
_GET = text("""
SELECT question, answer FROM leadloop.learned_answers
 WHERE campaign_id = :campaign ORDER BY learned_at, question
""")


def record_answer(connection: Connection, campaign_id: str, question: str, answer: str) -> None:
    """Record an answer, in place of an earlier one. It must hold no personal data."""
    connection.execute(_RECORD, {"campaign": campaign_id, "question": question, "answer": answer})


def get_answers(connection: Connection, campaign_id: str) -> Mapping[str, str]:
    """Return the answers by question, in the order in which they were learned."""
    rows = connection.execute(_GET, {"campaign": campaign_id})
    return {row.question: row.answer for row in rows}
