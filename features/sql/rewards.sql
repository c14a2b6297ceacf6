-- Every decision of a stream with the outcome that counts: of those observed by as_of and within the window, the one of
-- the highest attempt; of one attempt, the one that the assigned destination served, then the first observed.
-- Probes never count as a decision's own outcome: they are listed beside it.
-- A decision is open until a final outcome is there or its window is over; then it is lost, or censored if it was cut.
WITH decided AS NOT MATERIALIZED ( -- so that every reader of it scans only the columns that it needs
    SELECT * FROM decisions
    WHERE stream = $stream
        AND decided_at <= $as_of::TIMESTAMPTZ
        AND ($since::TIMESTAMPTZ IS NULL OR decided_at >= $since::TIMESTAMPTZ)
        AND ($until::TIMESTAMPTZ IS NULL OR decided_at < $until::TIMESTAMPTZ)
        AND ($one_in::UBIGINT = 1 OR hash(decision_id) % $one_in::UBIGINT = 0)
),
told AS (
    SELECT -- what is read twice is kept once: no column more than that
        decision_id, assigned, served, attempt, observed_at, success, latency_ms, cost_usd, status, probe, outcome_key
    FROM outcomes
    JOIN (SELECT decision_id, decided_at, assigned FROM decided) AS made USING (decision_id)
    WHERE ($until::TIMESTAMPTZ IS NULL OR observed_at < $until::TIMESTAMPTZ + to_microseconds($window_us))
        AND epoch_us(observed_at) <= least(epoch_us($as_of::TIMESTAMPTZ), epoch_us(decided_at) + $window_us)
),
counted AS (
    SELECT decision_id, served, attempt, observed_at, success, latency_ms, cost_usd, status
    FROM told
    WHERE NOT probe
    QUALIFY row_number() OVER (
        PARTITION BY decision_id ORDER BY attempt DESC, served = assigned DESC, observed_at, outcome_key
    ) = 1
),
probed AS (
    SELECT decision_id, list(
        {'served': served, 'status': status, 'success': success, 'latency_ms': latency_ms, 'cost_usd': cost_usd}
        ORDER BY served
    ) AS probes
    FROM (
        SELECT * FROM told
        WHERE probe AND served != assigned AND status IN ('observed', 'timeout')
        QUALIFY row_number() OVER (PARTITION BY decision_id, served ORDER BY attempt DESC, observed_at, outcome_key) = 1
    )
    GROUP BY decision_id
),
rewarded AS (
    SELECT
        decision_id, decided_at, event_source, event_id, arm_unit,
        destinations, [NOT map_contains(excluded, name) for name in destinations] AS eligible,
        assigned, list_position(destinations, assigned)::BIGINT - 1 AS assigned_index,
        propensity, mixture, policies, predictions, feature_set, numbers, categories,
        explored, mode, arm, arm_probability, generation, champion, challenger, shadow, content,
        served, attempt, observed_at, success, latency_ms, cost_usd, probes,
        CASE
            WHEN counted.status IN ('observed', 'timeout', 'lost') THEN counted.status
            WHEN epoch_us($as_of::TIMESTAMPTZ) <= epoch_us(decided_at) + $window_us THEN 'open'
            ELSE coalesce(counted.status, 'lost')
        END AS status
    FROM decided
    LEFT JOIN probed USING (decision_id)
    LEFT JOIN counted USING (decision_id)
)
SELECT * FROM rewarded
ORDER BY decided_at, decision_id
