-- What a server says of itself with every heartbeat, and what is wanted of it. Rows of an older release say
-- nothing of it: their servers left.
ALTER TABLE server ADD COLUMN tls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE server ADD COLUMN boot TEXT NOT NULL DEFAULT '';
ALTER TABLE server ADD COLUMN state TEXT NOT NULL DEFAULT 'left';
ALTER TABLE server ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE server ADD COLUMN wanted TEXT NOT NULL DEFAULT 'serving';
ALTER TABLE server ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE server ADD COLUMN in_flight INTEGER NOT NULL DEFAULT 0;

CREATE TABLE certificate (
    serial TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    author TEXT NOT NULL,
    issued_us INTEGER NOT NULL,
    expires_us INTEGER NOT NULL
) STRICT;
CREATE INDEX certificate_name ON certificate (kind, name);

CREATE TABLE join_token (
    id TEXT NOT NULL PRIMARY KEY,
    hash TEXT NOT NULL,
    author TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    expires_us INTEGER NOT NULL,
    used_us INTEGER,
    used_by TEXT NOT NULL DEFAULT ''
) STRICT;
