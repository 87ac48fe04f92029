//! A stylesheet makes another message of each on its way to the other system.

use anyhow::Result;
use serde_json::json;

use crate::Plan;
use crate::classic::rows;
use crate::order::{Form, XML};
use crate::report::Row;
use crate::requests::{Expected, Requests};
use crate::stage::{CHOSEN, Stage};

/// Makes a purchase of an order: everything is renamed, moved, or both.
const STYLESHEET: &str = r#"<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"
    xmlns="urn:bench:purchases" xmlns:o="urn:bench:orders" exclude-result-prefixes="o">
  <xsl:output method="xml" omit-xml-declaration="yes" encoding="UTF-8"/>
  <xsl:template match="/o:order">
    <purchase country="{o:customer/@country}">
      <xsl:apply-templates select="o:lines/o:line"/>
      <remark><xsl:value-of select="o:note"/></remark>
    </purchase>
  </xsl:template>
  <xsl:template match="o:line">
    <position pieces="{@quantity}" price="{o:price}"><xsl:value-of select="@article"/></position>
  </xsl:template>
</xsl:stylesheet>
"#;

/// What it makes of [`XML`].
const PURCHASE: Form = Form {
    open: r#"<purchase xmlns="urn:bench:purchases" country="PL">"#,
    line: r#"<position pieces="2" price="12.50">lamp</position>"#,
    between: "",
    note: "<remark>",
    close: "</remark></purchase>",
};

/// The rows of this file.
///
/// # Errors
/// Something does not start, or an answer is wrong.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let stage = Stage::set()?;
    stage.apply(&json!({
        "stylesheet": {"purchase": {"text": STYLESHEET}},
        "channel": {"transformed": {"type": "passthrough", "path": "/transformed", "outgoing": "chosen",
            "request_transform": [{"xslt": {"stylesheet": "purchase"}}]}},
    }))?;
    rows(plan, &stage, "XSLT of the request", requests)
}

/// Orders that come back as purchases.
fn requests(size: usize) -> Requests {
    let content = XML.content(size);
    Requests {
        path: "/transformed".into(),
        content_type: "application/xml",
        headers: Vec::new(),
        body: XML.text(content),
        // libxslt ends a document with a new line.
        expected: Expected::Whole(PURCHASE.text(content) + "\n"),
        asked_at: Some(format!("{CHOSEN}/transformed")),
        noted: None,
    }
}
