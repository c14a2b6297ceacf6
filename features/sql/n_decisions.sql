SELECT count(*) AS n_decisions
FROM decisions
WHERE stream = $stream
    AND ($since::TIMESTAMPTZ IS NULL OR decided_at >= $since::TIMESTAMPTZ)
    AND ($until::TIMESTAMPTZ IS NULL OR decided_at < $until::TIMESTAMPTZ)
