-- Valid staged decisions whose id is stored with another payload: the stored one was first.
SELECT
    place, 'conflict' AS rule, 'decision_id' AS field,
    format('decision {} is stored with another payload', decision_id) AS message
FROM valid_decisions AS staged
JOIN decisions AS stored USING (decision_id)
WHERE staged.payload_digest <> stored.payload_digest
ORDER BY place
