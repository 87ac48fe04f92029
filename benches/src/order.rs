//! An order as JSON and as XML, of any size: lines that repeat, and a note that fills what is left.

/// The pieces of one form.
pub(crate) struct Form {
    /// The beginning, with what every order has.
    pub open: &'static str,
    /// One line.
    pub line: &'static str,
    /// What stands between two lines.
    pub between: &'static str,
    /// What stands between the lines and the text of the note.
    pub note: &'static str,
    /// The end.
    pub close: &'static str,
}

/// With the customer's country at `/order/customer/country`.
pub(crate) const JSON: Form = Form {
    open: r#"{"order":{"customer":{"country":"PL"},"lines":["#,
    line: r#"{"article":"lamp","quantity":2,"price":"12.50"}"#,
    between: ",",
    note: r#"],"note":""#,
    close: r#""}}"#,
};

/// With the customer's country at `/o:order/o:customer/@country`, `o` being [`NAMESPACE`].
pub(crate) const XML: Form = Form {
    open: r#"<order xmlns="urn:bench:orders"><customer country="PL"/><lines>"#,
    line: r#"<line article="lamp" quantity="2"><price>12.50</price></line>"#,
    between: "",
    note: "</lines><note>",
    close: "</note></order>",
};

/// The namespace of [`XML`].
pub(crate) const NAMESPACE: &str = "urn:bench:orders";

/// How much there is in an order.
#[derive(Clone, Copy)]
pub(crate) struct Content {
    lines: usize,
    note: usize,
}

impl Form {
    /// As many lines as fit into `size` bytes, and a note for the rest.
    pub(crate) fn content(&self, size: usize) -> Content {
        let room = size.saturating_sub(self.open.len() + self.note.len() + self.close.len());
        let lines = (room + self.between.len()) / (self.line.len() + self.between.len());
        let separators = lines.saturating_sub(1) * self.between.len();
        Content { lines, note: room.saturating_sub(lines * self.line.len() + separators) }
    }

    /// The text of an order.
    pub(crate) fn text(&self, content: Content) -> String {
        let lines = vec![self.line; content.lines].join(self.between);
        [self.open, &lines, self.note, &"x".repeat(content.note), self.close].concat()
    }

    /// An order of `size` bytes.
    pub(crate) fn of_size(&self, size: usize) -> String {
        self.text(self.content(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_the_size_that_was_asked_for() {
        for size in [500, 1024, 10 * 1024, 100 * 1024] {
            let json = JSON.of_size(size);
            assert_eq!((json.len(), XML.of_size(size).len()), (size, size));
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(value.pointer("/order/customer/country").unwrap(), "PL");
        }
    }
}
