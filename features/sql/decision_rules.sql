-- One row per staged decision that breaks a rule: the first rule it breaks, the field to blame, and the rule in words.
-- list_sum and len are null on null, hence the coalesce around what must hold.
SELECT place, broken.rule AS rule, broken.field AS field, broken.message AS message
FROM (
    SELECT
        place,
        CASE
            WHEN stream NOT IN (SELECT stream FROM known_streams) THEN
                {'rule': 'unknown_stream', 'field': 'stream', 'message': format('stream {} is not configured', stream)}
            WHEN len(destinations) = 0 THEN
                {'rule': 'no_candidates', 'field': 'destinations', 'message': 'a decision needs at least one candidate'}
            WHEN len(list_distinct(destinations)) < len(destinations) THEN
                {'rule': 'repeated_destination', 'field': 'destinations', 'message': 'a destination is listed twice'}
            WHEN NOT list_has_all($known_destinations::VARCHAR[], destinations) THEN
                {'rule': 'unknown_destination', 'field': 'destinations', 'message': format(
                    'destinations {} are not configured',
                    list_filter(destinations, lambda name: NOT list_contains($known_destinations::VARCHAR[], name))::VARCHAR
                )}
            WHEN len(mixture) <> len(destinations) THEN
                {'rule': 'unequal_lengths', 'field': 'mixture', 'message': format(
                    '{} probabilities for {} destinations', len(mixture), len(destinations)
                )}
            WHEN len(list_filter(map_values(policies), lambda policy: len(policy) <> len(destinations))) > 0 THEN
                {'rule': 'unequal_lengths', 'field': 'policies', 'message': 'each policy needs one probability per destination'}
            WHEN len(numbers) NOT IN (0, len(destinations)) OR len(list_distinct([len(cells) for cells in numbers])) > 1 THEN
                {'rule': 'unequal_lengths', 'field': 'numbers', 'message': 'each destination needs one vector of one length'}
            WHEN len(categories) NOT IN (0, len(destinations)) OR len(list_distinct([len(cells) for cells in categories])) > 1 THEN
                {'rule': 'unequal_lengths', 'field': 'categories', 'message': 'each destination needs one vector of one length'}
            WHEN propensity IS NULL OR NOT isfinite(propensity) OR propensity <= 0 OR propensity > 1 THEN
                {'rule': 'bad_propensity', 'field': 'propensity', 'message': format('propensity must lie in (0, 1], got {}', propensity)}
            WHEN list_min(mixture) < 0 OR abs(list_sum(mixture) - 1) > 1e-6 THEN  -- NaN is above every number
                {'rule': 'mixture_sum', 'field': 'mixture', 'message': format('mixture must sum to 1, got {}', list_sum(mixture))}
            WHEN NOT list_contains(destinations, assigned) THEN
                {'rule': 'unknown_assigned', 'field': 'assigned', 'message': format('assigned {} is not among the candidates', assigned)}
            WHEN map_contains(excluded, assigned) THEN
                {'rule': 'excluded_assigned', 'field': 'assigned', 'message': format(
                    'assigned {} is excluded by {}', assigned, excluded[assigned]
                )}
            WHEN abs(propensity - mixture[list_position(destinations, assigned)]) > 1e-9 THEN
                {'rule': 'propensity_not_mixture', 'field': 'propensity', 'message': format(
                    'propensity must be the mixture''s {} at the assigned destination, got {}',
                    mixture[list_position(destinations, assigned)], propensity
                )}
            WHEN epoch_us(decided_at) > epoch_us($now) + $skew_us THEN
                {'rule': 'decided_in_future', 'field': 'decided_at', 'message': format('decided_at {} is yet to come', decided_at::VARCHAR)}
            WHEN latency_us < 0 OR NOT isfinite(latency_us) THEN
                {'rule': 'bad_latency', 'field': 'latency_us', 'message': format('latency_us must be at least 0, got {}', latency_us)}
        END AS broken
    FROM staged_decisions
)
WHERE broken IS NOT NULL
ORDER BY place
