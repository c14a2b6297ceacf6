-- The first staged decision of each id is kept, unless one is stored already. (An anti-join: MERGE takes twice as long.)
INSERT INTO decisions BY NAME
SELECT staged.* EXCLUDE (place)
FROM valid_decisions AS staged
ANTI JOIN decisions AS stored USING (decision_id)
WHERE place IN (SELECT min(place) FROM valid_decisions GROUP BY decision_id)
