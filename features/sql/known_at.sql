-- The decisions of a stream that say when what they were made from became known, as those told from outside may.
SELECT decision_id, decided_at, extras
FROM decisions
WHERE stream = $stream AND contains(extras, '"known_at"')
ORDER BY decided_at, decision_id
