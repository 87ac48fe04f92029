//! Lists as JSON, where a database has no arrays or a column holds JSON.

use crosstie_model::outgoing::SqlValue;

use super::convert::word;

/// Writes `items` as a JSON array.
///
/// # Errors
/// One of them has no form in JSON.
pub(super) fn write_list(out: &mut String, items: &[SqlValue]) -> Result<(), String> {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_item(out, item)?;
    }
    out.push(']');
    Ok(())
}

fn write_item(out: &mut String, item: &SqlValue) -> Result<(), String> {
    match item {
        SqlValue::Null => out.push_str("null"),
        SqlValue::Json(text) => out.push_str(text),
        SqlValue::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        SqlValue::Int(number) => out.push_str(&number.to_string()),
        SqlValue::UInt(number) => out.push_str(&number.to_string()),
        SqlValue::Float(number) if number.is_finite() => out.push_str(&format!("{number:?}")),
        SqlValue::Array(items) => write_list(out, items)?,
        SqlValue::Text(text) => out.push_str(&serde_json::Value::from(text.as_str()).to_string()),
        other => return Err(format!("holds {}, which JSON has no form for", word(other))),
    }
    Ok(())
}
