SELECT
    (SELECT count(*) FROM decisions) AS n_decisions,
    (SELECT count(*) FROM outcomes) AS n_outcomes,
    (SELECT count(*) FROM outcomes WHERE decision_id NOT IN (SELECT decision_id FROM decisions)) AS n_orphans,
    (SELECT count(*) FROM outcomes WHERE late) AS n_late,
    (SELECT count(*) FROM quarantine) AS n_quarantined
