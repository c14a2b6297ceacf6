SELECT * FROM outcomes WHERE decision_id = $decision_id ORDER BY attempt, observed_at, outcome_key
