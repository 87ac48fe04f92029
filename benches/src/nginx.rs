//! nginx as a reverse proxy: the yardstick of everything that hands requests on.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, Result};
use crosstie_test_support::PortBase;
use tempfile::TempDir;

use crate::beside::Beside;

/// Where Debian has it.
const PROGRAM: &str = "/usr/sbin/nginx";

/// One worker process, as the server it is compared with has one; an access log that says what ours does and is
/// written as ours is, gathered for 50 ms; connections that are kept on both sides for as long as they are used; and
/// room for bodies in memory, so that none is written to disk.
const CONFIGURATION: &str = r#"
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log;
events { worker_connections 1024; }
http {
    log_format ours escape=json '{"time":"$time_iso8601","cid":"$request_id","client":"$remote_addr",'
        '"method":"$request_method","path":"$uri","protocol":"$server_protocol","status":$status,'
        '"bytes_in":$request_length,"bytes_out":$body_bytes_sent,"s":$request_time,"channel":"$server_name",'
        '"user_agent":"$http_user_agent"}';
    access_log access.log ours buffer=256k flush=50ms;
    client_body_temp_path bodies;
    proxy_temp_path answers;
    client_body_buffer_size 256k;
    proxy_buffers 16 16k;
    proxy_max_temp_file_size 0;
    keepalive_requests 100000000;
    upstream other {
        server UPSTREAM;
        keepalive 64;
        keepalive_requests 100000000;
    }
    server {
        listen 127.0.0.1:PORT;
        server_name proxied;
        location / {
            proxy_pass http://other;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
}
"#;

/// A running one.
pub(crate) struct Nginx {
    process: Beside,
    _directory: TempDir,
}

impl Nginx {
    /// Starts one that hands everything on to `upstream`.
    ///
    /// # Errors
    /// nginx is not installed.
    pub(crate) fn start(upstream: SocketAddr) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let port = PortBase::reserve()?;
        let text = CONFIGURATION
            .replace("UPSTREAM", &upstream.to_string())
            .replace("PORT", &port.number().to_string());
        std::fs::write(directory.path().join("nginx.conf"), text)?;
        let mut command = Command::new(PROGRAM);
        command.arg("-p").arg(directory.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        let process = Beside::start(port, &mut command).context("apt-get install nginx-light")?;
        Ok(Self { process, _directory: directory })
    }

    /// The master's process id; the worker is its child.
    ///
    /// # Errors
    /// As for [`Beside::pid`].
    pub(crate) fn pid(&self) -> Result<i32> {
        self.process.pid()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.process.address()
    }
}
