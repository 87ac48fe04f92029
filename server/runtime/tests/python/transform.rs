//! Stylesheets and the mapping between XML and data, as services see them. Real stylesheets are for the end-to-end tests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use crosstie_model::FailureKind;
use crosstie_model::transform::{Stylesheet, TransformError, TransformTrouble, Transformation, Transformed};
use serde_json::json;

use crate::support::{World, get};

/// Says what it was given; waits for ever for `<wait/>`, and fails for `<fail/>`.
#[derive(Debug)]
struct Says;

#[async_trait]
impl Stylesheet for Says {
    async fn transform(&self, work: Transformation) -> Result<Transformed, TransformError> {
        let text = String::from_utf8_lossy(&work.source).into_owned();
        if text == "<fail/>" {
            return Err(TransformError::new(TransformTrouble::Failed, "line 3: secret"));
        }
        if text == "<wait/>" {
            std::future::pending::<()>().await;
        }
        // As a thread of its own would: later.
        tokio::task::yield_now().await;
        let body = format!("{text} {:?} {:?}", work.charset, work.parameters);
        let encoding = if text == "<latin/>" { "ISO-8859-1" } else { "UTF-8" };
        Ok(Transformed {
            body: body.into(),
            media_type: "text/plain".into(),
            encoding: encoding.into(),
            messages: Vec::new(),
        })
    }
}

const SERVICES: &str = r#"
from crosstie import *
class Calls(Service):
    name = "calls"
    def handle(self):
        says = self.transform["says"]
        broken = self.transform["broken"]
        seen = [says("<a/>"), says(b"<a/>", {"t": "x", "n": 2}, f=0.5, b=False), says("<latin/>").decode()]
        for wrong in (lambda: says(7), lambda: says("<a/>", {"a": object()}), lambda: self.transform["gone"],
                      lambda: broken("<a/>"), lambda: says("<fail/>"), lambda: self.transform.from_xml("<a>")):
            try:
                wrong()
            except Exception as error:
                seen.append([type(error).__name__, getattr(error, "reason", None)])
        return seen
class Awaits(Service):
    name = "awaits"
    async def handle(self):
        import asyncio
        both = await asyncio.gather(self.transform["says"]("<a/>"), self.transform["says"]("<b/>"))
        return [both, self.transform.from_xml("<a><b>1</b></a>", arrays=["b"]), "says" in self.transform]
class Uncaught(Service):
    name = "uncaught"
    def handle(self):
        return self.transform["says"]("<fail/>")
class Late(Service):
    name = "late"
    def handle(self):
        return self.transform["says"]("<wait/>")
"#;

async fn world() -> World {
    let world = World::new();
    let found = [("says", Ok(Arc::new(Says) as Arc<dyn Stylesheet>)), ("broken", Err("line 3".into()))];
    let found = found.into_iter().map(|(name, found)| (name.to_owned(), found));
    world.directory.stylesheets.lock().unwrap().extend(found);
    world.deploy("unit", SERVICES).await;
    world
}

#[tokio::test]
async fn services_transform_by_name() {
    let world = world().await;
    assert_eq!(
        world.json("calls", get()).await,
        json!([
            "<a/> Some(\"utf-8\") []",
            "<a/> None [(\"t\", Text(\"x\")), (\"n\", Number(2.0)), (\"f\", Number(0.5)), (\"b\", Truth(false))]",
            "<latin/> Some(\"utf-8\") []",
            ["TypeError", null],
            ["TypeError", null],
            ["KeyError", null],
            ["ServiceUnavailable", "closed"],
            ["InternalServerError", "failed"],
            ["BadRequest", "source"],
        ])
    );
    assert_eq!(
        world.json("awaits", get()).await,
        json!([["<a/> Some(\"utf-8\") []", "<b/> Some(\"utf-8\") []"], {"b": ["1"]}, true])
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_stylesheet_is_not_told_to_callers() {
    let world = world().await;
    let failure = world.call("uncaught", get()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Internal);
    assert!(!failure.text.contains("secret"), "{failure:?}");
    let late = world.call("late", get().within(Duration::from_millis(300))).await.unwrap_err();
    assert_eq!(late.kind, FailureKind::Timeout);
}
