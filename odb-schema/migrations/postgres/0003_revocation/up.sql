-- Certificates that are worth nothing any more, though they have not ended.
CREATE TABLE revocation (
    serial TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    revoked_us BIGINT NOT NULL
);
