-- Outcomes that waited for a decision that has come now: whether they are late can be told, their bytes can go.
UPDATE outcomes
SET late = epoch_us(observed_at) > epoch_us(decided_at) + window_us, pending_raw = NULL
FROM (
    SELECT decision_id, decided_at, window_us
    FROM decisions
    LEFT JOIN known_streams USING (stream)
    WHERE decision_id IN (SELECT decision_id FROM valid_decisions)
) AS decided
WHERE outcomes.decision_id = decided.decision_id AND pending_raw IS NOT NULL
