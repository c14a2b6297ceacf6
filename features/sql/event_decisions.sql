SELECT * FROM decisions
WHERE event_id = $event_id AND ($event_source::VARCHAR IS NULL OR event_source = $event_source)
ORDER BY decided_at, decision_id
