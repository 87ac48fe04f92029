use proptest::prelude::*;

use crate::{Document, Element, Limits, Node, Reason, Writer};

fn parse(text: &str) -> Document<'_> {
    Document::parse(text, &Limits::default()).unwrap()
}

fn refused(text: &str) -> Reason {
    Document::parse(text, &Limits::default()).expect_err(text).reason
}

/// What a document says, with its prefixes replaced by namespaces.
fn shown(element: Element<'_>) -> String {
    let mut out = format!("<{}", element.qname());
    let mut attributes: Vec<_> = element.attributes().map(|a| (a.namespace, a.local, a.value)).collect();
    attributes.sort_unstable();
    for (namespace, local, value) in attributes {
        out += &format!(" {namespace}|{local}={value:?}");
    }
    out.push('>');
    for child in element.children() {
        match child {
            Node::Element(child) => out += &shown(child),
            Node::Text(text) => out += &format!("{text:?}"),
        }
    }
    out + "</>"
}

#[test]
fn names_are_in_their_namespaces_whatever_their_prefixes() {
    let default = r#"<a xmlns="urn:a"><b xmlns=""><c/></b><d xmlns="urn:d" x="1"/><e/></a>"#;
    let mixed = r#"<p:a xmlns:p="urn:a"><b><c></c></b><p:d xmlns:p="urn:d" x='1'/><p:e/></p:a>"#;
    assert_eq!(shown(parse(default).root()), shown(parse(mixed).root()));
    assert_eq!(shown(parse(default).root()), r#"<{urn:a}a><b><c></></><{urn:d}d |x="1"></><{urn:a}e></></>"#);
    // A declaration counts for the whole tag, also for what stands before it.
    let late = r#"<p:a p:x="1" y="2" xml:lang="en" xmlns:p="urn:p"/>"#;
    assert_eq!(
        shown(parse(late).root()),
        r#"<{urn:p}a |y="2" http://www.w3.org/XML/1998/namespace|lang="en" urn:p|x="1"></>"#
    );
}

#[test]
fn text_is_one_piece_whatever_it_was_written_with() {
    let document = parse(
        "\u{feff}<?xml version='1.0' encoding='UTF-8' standalone=\"yes\"?><!-- c --><?p i?>\
         <a>x<!-- c -->&lt;&#65;&#x1F600;<![CDATA[<y>&z;]]]]><![CDATA[>]]>\r\nb\rc<i/>é<?p i?> </a>\n<!-- end -->",
    );
    let root = document.root();
    let children: Vec<_> = root.children().collect();
    assert!(matches!(children[0], Node::Text("x<A😀<y>&z;]]>\nb\nc")), "{children:?}");
    assert!(matches!(children[2], Node::Text("é ")), "{children:?}");
    assert_eq!(root.text(), "x<A😀<y>&z;]]>\nb\ncé ");
    assert_eq!(children.len(), 3);
    assert!(!root.is_blank() && root.child("", "i").unwrap().is_blank());
}

#[test]
fn values_of_attributes_are_normalised() {
    let document = parse("<a b='x\ty\r\nz\n&#10;&#9;&quot;&amp;\"' c=\" 'é' \"/>");
    let root = document.root();
    assert_eq!(root.attribute("", "b"), Some("x y z \n\t\"&\""));
    assert_eq!(root.attribute("", "c"), Some(" 'é' "));
    assert_eq!(root.attribute("urn:x", "b"), None);
}

const NOT_WELL_FORMED: &[&str] = &[
    "",
    " ",
    "text",
    "<",
    "<a",
    "<a>",
    "<a></b>",
    "</a>",
    "<a/><b/>",
    "<a/>x",
    "x<a/>",
    "<a/>&lt;",
    "<a/><![CDATA[]]>",
    "<a b></a>",
    "<a b=1/>",
    "<a b='1' b='2'/>",
    "<a b='1'c='2'/>",
    "<a b='<'/>",
    "<a b='1/>",
    "<a b=\"1'/>",
    "<a>]]></a>",
    "<a>&</a>",
    "<a>&#0;</a>",
    "<a>&#xD800;</a>",
    "<a>&#x110000;</a>",
    "<a>&#;</a>",
    "<a>&#x;</a>",
    "<a>&#+5;</a>",
    "<a>&#1;</a>",
    "<a b='&'/>",
    "<a>\u{1}</a>",
    "<a>\u{fffe}</a>",
    "<1/>",
    "<a:/>",
    "<:a/>",
    "<a:b:c/>",
    "<a -='1'/>",
    "<a><!-- -- --></a>",
    "<a><!-- --->",
    "<a><?xml v?></a>",
    " <?xml version='1.0'?><a/>",
    "<?xml version='1.1'?><a/>",
    "<?xml encoding='utf-8'?><a/>",
    "<? a?><a/>",
    "<a></a b='1'>",
    "< a/>",
    "<a/b/>",
    "<a><![cdata[x]]></a>",
    "<a xmlns:xmlns='urn:x'/>",
    "<a xmlns='http://www.w3.org/2000/xmlns/'/>",
    "<a xmlns:xml='urn:x'/>",
    "<a xmlns:p=''/>",
    "<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
    "<a xmlns='urn:a' xmlns='urn:b'/>",
    "<a xmlns:p='urn:a' xmlns:p='urn:a'/>",
    "<a xmlns:p='urn:x' xmlns:q='urn:x' p:b='1' q:b='2'/>",
];

#[test]
fn documents_that_are_not_well_formed_are_refused() {
    for text in NOT_WELL_FORMED {
        assert!(matches!(refused(text), Reason::Malformed(_)), "{text}: {:?}", refused(text));
    }
    assert!(matches!(refused("<p:a/>"), Reason::Prefix(prefix) if prefix == "p"));
    assert!(matches!(refused("<a q:b=''/>"), Reason::Prefix(_)));
    assert!(matches!(refused("<a>&nbsp;</a>"), Reason::Entity(entity) if entity == "nbsp"));
    assert!(matches!(refused("<a b='&x;'/>"), Reason::Entity(_)));
}

#[test]
fn an_error_says_where() {
    let error = Document::parse("<a>\n  <é b='1' c/>\n</a>", &Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "an attribute without a quoted value (line 2, column 12)");
    let error = Document::parse("<a>\n<b></a>", &Limits::default()).unwrap_err();
    assert_eq!((error.line, error.column), (2, 4));
    let document = parse("<a>\n <b/></a>");
    assert_eq!(document.root().elements().next().unwrap().place(), (2, 2));
}

#[test]
fn nothing_defines_an_entity() {
    let bomb = "<?xml version='1.0'?><!DOCTYPE l [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'>\
        <!ENTITY c '&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;'>]><l>&c;</l>";
    let external = "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>";
    let parameter = "<!DOCTYPE a [<!ENTITY % x SYSTEM 'http://127.0.0.1/x.dtd'> %x;]><a/>";
    for text in [bomb, external, parameter, "<!DOCTYPE a><a/>", "<!DOCTYPE a SYSTEM 'a.dtd'><a/>"] {
        assert_eq!(refused(text), Reason::Doctype, "{text}");
    }
    for text in ["<!doctype a><a/>", "<!ENTITY a 'b'><a/>", "<a><!ELEMENT a ANY></a>", "<!DOCTYPE a [", "<!"]
    {
        assert!(matches!(refused(text), Reason::Malformed(_) | Reason::Doctype), "{text}");
    }
}

fn over(text: &str, limits: Limits) -> (&'static str, usize) {
    match Document::parse(text, &limits).unwrap_err().reason {
        Reason::Limit { what, most } => (what, most),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_limit_is_obeyed() {
    let limits = Limits::default();
    let deep = |depth: usize| "<a>".repeat(depth) + &"</a>".repeat(depth);
    assert!(Document::parse(deep(limits.depth), &limits).is_ok());
    assert_eq!(over(&deep(limits.depth + 1), limits), ("the nesting of elements", limits.depth));
    assert_eq!(over(&deep(10_000), limits).0, "the nesting of elements");
    assert_eq!(over(&deep(201), Limits { depth: usize::MAX, ..limits }), ("the nesting of elements", 200));
    assert_eq!(over(&"<a>".repeat(1_000_000), limits).0, "the nesting of elements");

    let flood = |count: usize| format!("<a{}/>", (0..count).map(|n| format!(" a{n}=''")).collect::<String>());
    assert!(Document::parse(flood(limits.attributes), &limits).is_ok());
    assert_eq!(over(&flood(limits.attributes + 1), limits).0, "the number of attributes");
    assert_eq!(over(&flood(100_000), limits).0, "the number of attributes");

    let long = format!("<{}/>", "a".repeat(limits.name_bytes + 1));
    assert_eq!(over(&long, limits).0, "the length of a name in bytes");
    for declared in ["xmlns", "xmlns:a"] {
        let long = |bytes: usize| format!("<a {declared}='{}'/>", "u".repeat(bytes));
        assert!(Document::parse(long(limits.namespace_bytes), &limits).is_ok());
        assert_eq!(over(&long(limits.namespace_bytes + 1), limits).0, "the length of a namespace in bytes");
    }
    let small = Limits { text_bytes: 4, bytes: 60, nodes: 3, namespaces: 2, ..limits };
    assert!(Document::parse("<a b='1234'>1234</a>", &small).is_ok());
    assert_eq!(over("<a>12345</a>", small).0, "the length of a text in bytes");
    assert_eq!(over("<a>1<!-- -->23<!-- -->45</a>", small).0, "the length of a text in bytes");
    assert_eq!(over("<a b='12345'/>", small).0, "the length of a value in bytes");
    assert_eq!(over("<a b=''><b/>x</a>", small).0, "the number of nodes");
    assert_eq!(over("<a b='' c='' d=''/>", small).0, "the number of nodes");
    assert_eq!(over(&format!("<a>{}</a>", " ".repeat(60)), small).0, "the size of the document in bytes");
    let namespaces = "<a xmlns='a' xmlns:b='b'><c xmlns:d='d'/></a>";
    assert_eq!(over(namespaces, small), ("the number of namespaces in scope", 2));
    assert!(
        Document::parse("<a xmlns='a'><b xmlns:c='c'/><d xmlns:e='e'/></a>", &Limits { nodes: 9, ..small })
            .is_ok()
    );
}

#[test]
fn a_part_of_a_document_is_a_document_of_its_own() {
    let document = parse(
        r#"<e:a xmlns:e="urn:e" xmlns="urn:d" xmlns:x="urn:x&amp;&#60;"><b t="x:T"><c xmlns="" xmlns:e="urn:2"><e:d
        />&lt;</c></b></e:a>"#,
    );
    let part = document.root().child("urn:d", "b").unwrap();
    let source = part.to_source();
    let again = parse(&source);
    assert_eq!(shown(again.root()), shown(part));
    assert_eq!(again.root().resolve("x:T").unwrap(), part.resolve("x:T").unwrap());
    let inner = part.child("", "c").unwrap();
    assert_eq!(shown(parse(&inner.to_source()).root()), shown(inner));
    assert_eq!(shown(parse(&document.root().to_source()).root()), shown(document.root()));
}

#[test]
fn names_in_content_are_resolved_where_they_stand() {
    let document = parse("<a xmlns='urn:a' xmlns:p='urn:p'><b xmlns='' xmlns:p='urn:q'/></a>");
    let (root, inner) = (document.root(), document.root().child("", "b").unwrap());
    assert_eq!(root.resolve(" p:T\n").unwrap().to_string(), "{urn:p}T");
    assert_eq!(root.resolve("T").unwrap().to_string(), "{urn:a}T");
    assert_eq!(inner.resolve("p:T").unwrap().to_string(), "{urn:q}T");
    assert_eq!(inner.resolve("T").unwrap().to_string(), "T");
    assert!(inner.resolve("q:T").is_none());
    assert_eq!(inner.resolve("xml:lang").unwrap().namespace.as_ref(), crate::namespace::XML);
}

#[derive(Debug, Clone)]
struct Tree {
    namespace: &'static str,
    local: String,
    attributes: Vec<(&'static str, String, String)>,
    children: Vec<Result<Tree, String>>,
}

fn tree() -> impl Strategy<Value = Tree> {
    let namespace =
        || prop::sample::select(vec!["", "urn:a", "urn:b", "http://c/?d=1&e=2", crate::namespace::XML]);
    let text = || "[ -~\t\n\r]{0,6}[é<&>\"']?";
    let attributes = move || prop::collection::vec((namespace(), "[a-c]", text()), 0..3);
    let leaf = (namespace(), "[a-z]{1,3}", attributes()).prop_map(|(namespace, local, attributes)| Tree {
        namespace,
        local,
        attributes,
        children: Vec::new(),
    });
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let child = prop_oneof![inner.prop_map(Ok), text().prop_map(Err)];
        (namespace(), "[a-z]{1,3}", attributes(), prop::collection::vec(child, 0..4)).prop_map(
            |(namespace, local, attributes, children)| Tree { namespace, local, attributes, children },
        )
    })
}

fn write(tree: &Tree, writer: &mut Writer, shown: &mut String) {
    writer.start(tree.namespace, &tree.local);
    let name = crate::QName::new(tree.namespace, tree.local.as_str());
    *shown += &format!("<{name}");
    let mut attributes = tree.attributes.clone();
    attributes.sort_unstable();
    attributes.dedup_by(|one, other| (&one.0, &one.1) == (&other.0, &other.1));
    for (namespace, local, value) in &attributes {
        writer.attribute(namespace, local, value);
        *shown += &format!(" {namespace}|{local}={value:?}");
    }
    shown.push('>');
    let mut text = String::new();
    for child in &tree.children {
        match child {
            Err(more) => {
                writer.text(more);
                text += more;
            }
            Ok(child) => {
                if !text.is_empty() {
                    *shown += &format!("{:?}", std::mem::take(&mut text));
                }
                write(child, writer, shown);
            }
        }
    }
    if !text.is_empty() {
        *shown += &format!("{text:?}");
    }
    writer.end();
    *shown += "</>";
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was_meant(tree in tree()) {
        let (mut writer, mut meant) = (Writer::document(), String::new());
        write(&tree, &mut writer, &mut meant);
        let text = writer.finish();
        let document = Document::parse(text.as_str(), &Limits::default()).unwrap();
        prop_assert_eq!(shown(document.root()), meant);
        let again = document.root().to_source();
        prop_assert_eq!(shown(parse(&again).root()), shown(document.root()));
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,80}", tags in "[<>/a:&;!?='x#1\" \\[\\]CDAT\r\n-]{0,60}") {
        let limits = Limits { nodes: 20, depth: 4, ..Limits::default() };
        for text in [&text, &tags, &format!("<a>{tags}</a>"), &format!("<a {tags}/>"), &format!("<a xmlns:{tags}/>")] {
            if let Ok(document) = Document::parse(text.as_str(), &limits) {
                let _ = shown(document.root());
                let _ = parse(&document.root().to_source());
            }
        }
    }
}
