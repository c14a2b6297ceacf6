-- Outcomes that waited for a decision that has come now, and turn out to have been observed before it.
SELECT
    outcome_key, outcomes.source, "position", pending_raw,
    format('observed_at {} is before decided_at {}', observed_at::VARCHAR, decided_at::VARCHAR) AS message
FROM outcomes
JOIN decisions USING (decision_id)
WHERE pending_raw IS NOT NULL
    AND decision_id IN (SELECT decision_id FROM valid_decisions)
    AND epoch_us(observed_at) < epoch_us(decided_at) - $skew_us
ORDER BY outcome_key
