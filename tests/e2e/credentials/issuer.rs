//! An issuer: a real HTTP server that publishes keys and answers questions about tokens, as a test tells it by
//! files.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crosstie_test_support::{Issued, Pki, Validity};
use serde_json::{Value, json};
use tempfile::TempDir;

const SERVER: &str = r#"
import base64, http.server, json, os, ssl, sys, time, urllib.parse
root = sys.argv[1]

class Issuer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def told(self, name, default):
        try:
            with open(os.path.join(root, name)) as file:
                return json.load(file)
        except FileNotFoundError:
            return default

    def note(self, line):
        with open(os.path.join(root, "asked"), "a") as file:
            file.write(line + "\n")

    def answer(self, body):
        mood = self.told("mood", {})
        time.sleep(mood.get("seconds", 0))
        text = json.dumps(body).encode() + b" " * mood.get("padding", 0)
        self.send_response(mood.get("status", 200))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        self.note("GET " + self.path)
        self.answer(self.told("keys", {"keys": []}))

    def do_POST(self):
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        token = urllib.parse.parse_qs(form)["token"][0]
        self.note("POST " + token)
        user = base64.b64decode(self.headers["Authorization"].split()[1]).decode()
        if user != "shop:the-client-secret":
            self.send_error(401)
            return
        self.answer(self.told("tokens", {}).get(token, {"active": False}))

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
if os.path.exists(os.path.join(root, "server.pem")):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(root, "server.pem"), os.path.join(root, "server.key"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// See the module. Ends when dropped.
pub(super) struct Issuer {
    directory: TempDir,
    process: Child,
    pub(super) url: String,
}

impl Issuer {
    /// One that speaks plain HTTP.
    pub(super) fn plain() -> Self {
        Self::start(None)
    }

    /// One that speaks TLS with a certificate of `pki`.
    pub(super) fn secured(pki: &Pki) -> Self {
        Self::start(Some(pki.issue("issuer", 77, Validity::Now).unwrap()))
    }

    fn start(issued: Option<Issued>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let scheme = if issued.is_some() { "https" } else { "http" };
        if let Some(issued) = issued {
            fs::write(directory.path().join("server.pem"), issued.certificate).unwrap();
            fs::write(directory.path().join("server.key"), issued.key).unwrap();
        }
        let mut command = Command::new("python3");
        command.args(["-c", SERVER]).arg(directory.path()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = format!("{scheme}://127.0.0.1:{}", line.trim());
        Self { directory, process, url }
    }

    fn tell(&self, name: &str, value: &Value) {
        let beside = self.directory.path().join("part");
        fs::write(&beside, value.to_string()).unwrap();
        fs::rename(beside, self.directory.path().join(name)).unwrap();
    }

    /// Publishes these keys.
    pub(super) fn publish(&self, keys: &[Value]) {
        self.tell("keys", &json!({"keys": keys}));
    }

    /// Knows these tokens.
    pub(super) fn know(&self, tokens: &Value) {
        self.tell("tokens", tokens);
    }

    /// How it answers: with another `status`, after `seconds`, with so many bytes of `padding`.
    pub(super) fn answer(&self, mood: &Value) {
        self.tell("mood", mood);
    }

    /// What it was asked so far.
    pub(super) fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join("asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Ends it.
    pub(super) fn stop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.stop();
    }
}
