-- What may be used once, over all servers: SHA-256 of nonces of credentials.
CREATE TABLE IF NOT EXISTS used_nonce (
    digest VARBINARY(64) NOT NULL PRIMARY KEY,
    until_us BIGINT NOT NULL,
    KEY used_nonce_until (until_us)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
