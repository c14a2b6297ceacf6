-- The candidates of the planned decisions, with what was logged of them: all of a decision that is wanted whole, else those
-- alone whose outcome is known, which are the assigned one and those of its list of probed ones. In no order.
WITH listed AS (
    SELECT *, CASE
        WHEN whole THEN NULL
        WHEN probed IS NULL THEN [list_position(destinations, assigned)]
        ELSE [
            place for place in range(1, len(destinations) + 1)
            if destinations[place] = assigned OR list_contains(probed, destinations[place])
        ]
    END AS kept
    FROM decisions
    JOIN planned USING (decision_id)
    WHERE decided_at >= $since::TIMESTAMPTZ AND decided_at <= $until::TIMESTAMPTZ -- other parts of the file are let be
),
cut AS (
    SELECT * REPLACE (
        CASE WHEN kept IS NULL THEN destinations ELSE list_select(destinations, kept) END AS destinations,
        CASE WHEN kept IS NULL THEN numbers ELSE list_select(numbers, kept) END AS numbers,
        CASE WHEN kept IS NULL THEN categories ELSE list_select(categories, kept) END AS categories
    )
    FROM listed
),
candidates AS (
    SELECT
        planned_place, destinations, [NOT map_contains(excluded, name) for name in destinations] AS eligible,
        list_position(destinations, assigned)::BIGINT - 1 AS assigned_index, numbers, categories, policies, champion
    FROM cut
)
SELECT * FROM candidates
