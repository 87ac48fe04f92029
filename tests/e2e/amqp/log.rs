//! What the message log keeps of messages that are published and consumed.

use crosstie_test_support::{Environment, wait_for};
use serde_json::{Value, json};

use super::{apply, outgoing, plain};

const KEEPING: &str = r#"
from crosstie import Service, amqp, rest

class Sends(Service):
    name = "log.sends"
    channels = [rest("POST", "/log/send")]
    def handle(self):
        self.out.amqp["broker"].publish(self.request.payload, "", "log.kept")

class Takes(Service):
    name = "log.takes"
    channels = [amqp("log.kept", connection="broker", retry={"max": 0}, message_log={"bodies": "request", "mask": ["pin"]})]
    def handle(self):
        if self.request.payload.get("fails"):
            raise ValueError("no")
"#;

/// The kept messages of a cid, once there are so many: what was published first.
fn kept(environment: &Environment, cid: &str, count: usize) -> Vec<Value> {
    wait_for("the messages are kept", || {
        let found = environment.json(&["message", "show", cid]).ok()?;
        found.as_array().filter(|messages| messages.len() == count).cloned()
    })
}

#[test]
fn messages_that_are_published_and_consumed_are_kept_under_one_cid() {
    let broker = plain();
    let environment = Environment::start().unwrap();
    apply(&environment, &outgoing(&broker, ", message_log: {bodies: request}"));
    environment.drop_file("keeping.py", KEEPING).unwrap();
    let http = environment.http();
    let send = |payload: Value| {
        let reply = wait_for("the message is published", || {
            http.post_json("/log/send", &payload).ok().filter(|reply| reply.status < 300)
        });
        reply.header("x-crosstie-cid").to_owned()
    };
    // Published before its queue was there a message is lost, and says so.
    let cid = send(json!({"pin": "1234", "password": "s3cr3t", "n": 1}));
    let messages = kept(&environment, &cid, 2);
    let of = |messages: &[Value], key: &str| {
        messages.iter().find(|message| message.get(key).is_some()).cloned().unwrap()
    };
    let (out, came) = (of(&messages, "outgoing"), of(&messages, "channel"));
    assert_eq!((&out["outgoing"], &out["path"]), (&json!("broker"), &json!("log.kept")));
    assert_eq!(out["request"]["body"]["text"], r#"{"pin":"1234","password":"***","n":1}"#);
    assert_eq!((&came["type"], &came["path"]), (&json!("amqp"), &json!("log.kept")));
    assert_eq!((&came["service"], came.get("problem")), (&json!("log.takes"), None));
    assert_eq!(came["request"]["body"]["text"], r#"{"pin":"***","password":"***","n":1}"#);

    let refused = environment.run(&["message", "replay", &cid]).unwrap();
    assert!(
        refused.code == 1 && refused.stderr.contains("type amqp cannot be sent again"),
        "{}",
        refused.stderr
    );

    let cid = send(json!({"fails": true}));
    let messages = wait_for("the failure is kept", || {
        let found = environment.json(&["message", "search", "--cid", &cid, "--failed"]).ok()?;
        found.as_array().filter(|messages| !messages.is_empty()).cloned()
    });
    assert_eq!((&messages[0]["service"], messages.len()), (&json!("log.takes"), 1));
}
