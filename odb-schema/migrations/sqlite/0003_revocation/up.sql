-- Certificates that are worth nothing any more, though they have not ended.
CREATE TABLE revocation (
    serial TEXT NOT NULL PRIMARY KEY,
    revoked_us INTEGER NOT NULL
) STRICT;
