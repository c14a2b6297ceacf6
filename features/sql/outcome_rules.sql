-- One row per staged outcome that breaks a rule: the first rule it breaks, the field to blame, and the rule in words.
SELECT place, broken.rule AS rule, broken.field AS field, broken.message AS message
FROM (
    SELECT
        place,
        CASE
            WHEN NOT list_contains($known_destinations::VARCHAR[], served) THEN
                {'rule': 'unknown_destination', 'field': 'served', 'message': format('destination {} is not configured', served)}
            WHEN staged.status = 'observed' AND success IS NULL THEN
                {'rule': 'no_success', 'field': 'success', 'message': 'an observed outcome must say whether it succeeded'}
            WHEN latency_ms < 0 OR latency_ms > $max_latency_ms THEN  -- NaN is above every number
                {'rule': 'bad_latency', 'field': 'latency_ms', 'message': format(
                    'latency_ms must lie in [0, {}], got {}', $max_latency_ms, latency_ms
                )}
            WHEN cost_usd < 0 OR NOT isfinite(cost_usd) THEN
                {'rule': 'bad_cost', 'field': 'cost_usd', 'message': format('cost_usd must be at least 0, got {}', cost_usd)}
            WHEN epoch_us(observed_at) > epoch_us($now) + $skew_us THEN
                {'rule': 'observed_in_future', 'field': 'observed_at', 'message': format('observed_at {} is yet to come', observed_at::VARCHAR)}
            WHEN epoch_us(observed_at) < epoch_us(decided_at) - $skew_us THEN
                {'rule': 'observed_before_decided', 'field': 'observed_at', 'message': format(
                    'observed_at {} is before decided_at {}', observed_at::VARCHAR, decided_at::VARCHAR
                )}
        END AS broken
    FROM staged_outcomes AS staged
    LEFT JOIN decisions USING (decision_id)
)
WHERE broken IS NOT NULL
ORDER BY place
