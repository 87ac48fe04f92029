-- Certificates that are worth nothing any more, though they have not ended.
CREATE TABLE IF NOT EXISTS revocation (
    serial VARBINARY(64) NOT NULL PRIMARY KEY,
    revoked_us BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
