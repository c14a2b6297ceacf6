-- The first staged outcome of each key is kept, unless one is stored already. An outcome that came before its decision
-- keeps its bytes until it can be judged against it (settle_outcomes.sql).
INSERT INTO outcomes BY NAME
SELECT
    staged.* EXCLUDE (place, raw),
    epoch_us(observed_at) > epoch_us(decided_at) + window_us AS late,
    CASE WHEN decided_at IS NULL THEN raw END AS pending_raw
FROM valid_outcomes AS staged
ANTI JOIN outcomes AS stored USING (outcome_key)
LEFT JOIN (SELECT decision_id, decided_at, stream FROM decisions) AS decided USING (decision_id)
LEFT JOIN known_streams USING (stream)
WHERE place IN (SELECT min(place) FROM valid_outcomes GROUP BY outcome_key)
