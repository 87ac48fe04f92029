use serde_json::json;

use crate::support::Setup;

fn setup() -> Setup {
    Setup::new()
        .channel(
            "open",
            json!({"type": "rest", "path": "/open", "methods": ["POST"], "service": "echo", "security": "s",
                "cors": {"origins": ["https://app.example"], "headers": ["X-Token"], "credentials": true,
                    "expose": ["X-Crosstie-CID"], "max_age_s": 5}}),
        )
        .channel("closed", json!({"type": "rest", "path": "/closed", "methods": ["POST"], "service": "echo"}))
        .define(
            crosstie_model::DefinitionKind::Security,
            "s",
            json!({"type": "api_key", "name": "X-Token", "key": "env:PATH"}),
        )
}

#[test]
fn a_preflight_needs_no_credentials_and_says_what_is_allowed() {
    let server = setup().start();
    let mut client = server.connect();
    let preflight = "Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n";
    let answer = client.request("OPTIONS", "/open", preflight, b"");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("POST, OPTIONS"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("X-Token"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("access-control-max-age"), Some("5"));

    let stranger = "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n";
    for (path, headers) in [("/open", stranger), ("/closed", preflight)] {
        let answer = client.request("OPTIONS", path, headers, b"");
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, None), "{path}");
    }
}

#[test]
fn scripts_can_read_replies_and_errors_of_an_allowed_origin() {
    let server = setup().start();
    let mut client = server.connect();
    let answer = client.post("/open", "Origin: https://app.example\r\n", "");
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("X-Crosstie-CID"));
    let answer = client.post("/open", "", "");
    assert_eq!((answer.header("access-control-allow-origin"), answer.header("vary")), (None, Some("origin")));
}
