-- What may be used once, over all servers: SHA-256 of nonces of credentials.
CREATE TABLE used_nonce (
    digest TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    until_us BIGINT NOT NULL
);
CREATE INDEX used_nonce_until ON used_nonce (until_us);
