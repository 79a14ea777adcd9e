-- SPDX-License-Identifier: Apache-2.0
-- Inserts, an index, joins, sorting and updates in memory. ROWS is put in by bench/rootfs.py.
PRAGMA journal_mode = OFF;
CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT, city INTEGER, score INTEGER);
CREATE TABLE city(id INTEGER PRIMARY KEY, name TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 199)
INSERT INTO city SELECT i, 'city-' || i FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ROWS)
INSERT INTO person SELECT i, printf('%08x', i * 2654435761 % 4294967296), i * 7919 % 200, i * 31337 % 10007
FROM n;
CREATE INDEX person_name ON person(name);
COMMIT;
SELECT count(*), sum(score) FROM person WHERE name BETWEEN '40000000' AND '7fffffff';
SELECT city.name, count(*), avg(score) FROM person JOIN city ON city.id = person.city
GROUP BY city.id ORDER BY avg(score) DESC, city.id LIMIT 5;
UPDATE person SET score = score + length(name) WHERE id % 3 = 0;
SELECT sum(score), min(name), max(name) FROM person;
SELECT count(DISTINCT substr(name, 1, 4)) FROM person WHERE name LIKE '%a%';
DELETE FROM person WHERE score % 5 = 0;
SELECT count(*), total(score) FROM person;
