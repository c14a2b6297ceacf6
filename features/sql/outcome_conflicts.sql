-- Valid staged outcomes whose key is stored with another payload: the stored one was first.
SELECT
    place, 'conflict' AS rule, 'outcome_key' AS field,
    format('outcome {} is stored with another payload', outcome_key) AS message
FROM valid_outcomes AS staged
JOIN outcomes AS stored USING (outcome_key)
WHERE staged.payload_digest <> stored.payload_digest
ORDER BY place
