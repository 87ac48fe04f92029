//! What a handler sees and gives.

use crosstie_model::FailureKind;
use serde_json::json;

use crate::support::{World, get, post};

const HELLO: &str = r#"
from crosstie import Model, Service, rest

class Greeting(Model):
    text: str
    visits: int = 0

class Hello(Service):
    """Greets a caller by name."""
    name = "demo.hello"
    channels = [rest("GET", "/hello/{name}")]
    output = Greeting

    def handle(self):
        self.response.payload = Greeting(text=f"Hello {self.request.http.params['name']}")
"#;

#[tokio::test]
async fn the_service_of_the_guide_answers() {
    let world = World::new();
    let unit = world.deploy("hello", HELLO).await;
    let description = unit.services[0].description();
    assert_eq!(description.doc, "Greets a caller by name.");
    assert_eq!(description.class, "hello.Hello");
    assert_eq!(description.channels[0].path, "/hello/{name}");
    let answer = world.json("demo.hello", get().param("name", "Ada")).await;
    assert_eq!(answer, json!({"text": "Hello Ada", "visits": 0}));
}

#[tokio::test]
async fn an_exception_is_a_500_that_tells_nothing() {
    let world = World::new();
    world
        .deploy(
            "bad",
            "from crosstie import Service\nclass Bad(Service):\n    def handle(self):\n        raise ValueError('secret')\n",
        )
        .await;
    let failure = world.call("bad.bad", post(json!({}))).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Internal);
    assert!(!failure.text.contains("secret"));
}
