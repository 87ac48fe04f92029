//! What stylesheets do, and what they may not.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests report by panicking")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crosstie_model::definition::StylesheetDefinition;
use crosstie_model::limits::MAX_DOCUMENT_DEPTH;
use crosstie_model::transform::{
    Parameter, Stylesheet, TransformError, TransformTrouble, Transformation, Transformed,
};
use crosstie_xslt::{Sheet, faults};
use serde_json::json;

const HEAD: &str = "<xsl:stylesheet version='1.0' xmlns:xsl='http://www.w3.org/1999/XSL/Transform' \
     xmlns:exsl='http://exslt.org/common' xmlns:func='http://exslt.org/functions' \
     xmlns:str='http://exslt.org/strings' xmlns:math='http://exslt.org/math' xmlns:set='http://exslt.org/sets' \
     xmlns:date='http://exslt.org/dates-and-times' xmlns:f='urn:f' extension-element-prefixes='exsl func' \
     exclude-result-prefixes='str math set date f'>\n";

/// A definition with this between its head and its end.
fn definition(body: &str) -> StylesheetDefinition {
    serde_json::from_value(json!({"text": format!("{HEAD}{body}</xsl:stylesheet>")})).unwrap()
}

/// A template for the root.
fn template(content: &str) -> StylesheetDefinition {
    definition(&format!("<xsl:template match='/'>{content}</xsl:template>"))
}

fn transformation(source: &str) -> Transformation {
    Transformation {
        source: Bytes::copy_from_slice(source.as_bytes()),
        charset: None,
        parameters: Vec::new(),
        depth: MAX_DOCUMENT_DEPTH,
        deadline: Instant::now() + Duration::from_secs(60),
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn run(definition: &StylesheetDefinition, work: Transformation) -> Result<Transformed, TransformError> {
    wait(Sheet::open(definition).unwrap().transform(work))
}

fn text(transformed: &Transformed) -> &str {
    std::str::from_utf8(&transformed.body).unwrap()
}

/// What becomes of `source`, without the declaration.
fn made(definition: &StylesheetDefinition, source: &str) -> String {
    let transformed = run(definition, transformation(source)).unwrap();
    let text = text(&transformed);
    text.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").unwrap_or(text).trim_end().to_owned()
}

fn trouble(definition: &StylesheetDefinition, source: &str) -> (TransformTrouble, String) {
    let error = run(definition, transformation(source)).unwrap_err();
    (error.trouble, error.detail)
}

#[test]
fn a_document_is_transformed() {
    let sheet = definition(
        "<xsl:param name='who' select=\"'nobody'\"/><xsl:param name='rate' select='1'/><xsl:param name='loud'/>\
         <xsl:template match='/order'><o who='{$who}'><xsl:for-each select='line'><xsl:sort select='@n'/>\
         <l><xsl:value-of select='@n * $rate'/></l></xsl:for-each><xsl:if test='$loud'>!</xsl:if></o></xsl:template>",
    );
    let source = "<order><line n='3'/><line n='1'/></order>";
    assert_eq!(made(&sheet, source), "<o who=\"nobody\"><l>1</l><l>3</l></o>");
    let parameters = vec![
        // Text is text, whatever it looks like.
        ("who".to_owned(), Parameter::Text("it's \"<b>\" & concat('a', 'b')".to_owned())),
        ("rate".to_owned(), Parameter::Number(-1.5)),
        ("loud".to_owned(), Parameter::Truth(true)),
        ("unknown".to_owned(), Parameter::Text("left alone".to_owned())),
    ];
    let transformed = run(&sheet, Transformation { parameters, ..transformation(source) }).unwrap();
    let expected = "<o who=\"it's &quot;&lt;b&gt;&quot; &amp; concat('a', 'b')\"><l>-1.5</l><l>-4.5</l>!</o>";
    assert!(text(&transformed).contains(expected), "{}", text(&transformed));
    assert_eq!(transformed.content_type(), "application/xml; charset=utf-8");
    assert_eq!(transformed.messages, [] as [&str; 0]);
}

#[test]
fn wrong_parameters_are_the_callers_mistake() {
    let sheet = template("<a/>");
    for (name, value) in [
        ("a b", Parameter::Text(String::new())),
        ("a", Parameter::Text("zero \0".to_owned())),
        ("a", Parameter::Number(f64::NAN)),
        ("{urn:a}b", Parameter::Truth(false)),
    ] {
        let parameters = vec![(name.to_owned(), value)];
        let error = run(&sheet, Transformation { parameters, ..transformation("<a/>") }).unwrap_err();
        assert_eq!(error.trouble, TransformTrouble::Misuse, "{error}");
    }
}

#[test]
fn results_are_written_as_the_stylesheet_says() {
    let of = |body: &str| run(&definition(body), transformation("<a>é</a>")).unwrap();
    let plain = of("<xsl:template match='/'><xsl:copy-of select='.'/></xsl:template>");
    assert_eq!(text(&plain), "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a>é</a>\n");
    assert!(plain.is_utf8());
    let latin = of("<xsl:output method='text' encoding='ISO-8859-1'/>");
    assert_eq!((&latin.body[..], latin.is_utf8()), (&b"\xe9"[..], false));
    assert_eq!(latin.content_type(), "text/plain; charset=iso-8859-1");
    let html = of("<xsl:template match='/'><html><br/></html></xsl:template>");
    assert_eq!(html.content_type(), "text/html; charset=utf-8");
    assert!(text(&html).contains("<br>"), "{}", text(&html));
    let json = of("<xsl:output method='text' media-type='application/json'/>\
                   <xsl:template match='/'>{\"a\": 1}</xsl:template>");
    assert_eq!((json.media_type.as_str(), text(&json)), ("application/json", "{\"a\": 1}"));
    let nothing = of("<xsl:output omit-xml-declaration='yes'/><xsl:template match='/'/>");
    assert_eq!(text(&nothing).trim(), "");
    // A stylesheet may be the result with holes in it.
    let simple = "<r xsl:version='1.0' xmlns:xsl='http://www.w3.org/1999/XSL/Transform'>\
                  <xsl:value-of select='/a'/></r>";
    let simple: StylesheetDefinition = serde_json::from_value(json!({"text": simple})).unwrap();
    assert_eq!(made(&simple, "<a>7</a>"), "<r>7</r>");
}

#[test]
fn what_libxslt_brings_of_exslt_is_there() {
    let sheet = definition(
        "<func:function name='f:twice'><xsl:param name='n'/><func:result select='$n * 2'/></func:function>\
         <xsl:variable name='tree'><a>1</a><a>5</a><a>1</a></xsl:variable>\
         <xsl:template match='/'><r a='{f:twice(4)}' b='{math:max(exsl:node-set($tree)/a)}' \
         c='{count(set:distinct(exsl:node-set($tree)/a))}' d='{count(str:tokenize(\"a b c\"))}' \
         e='{date:year(\"2026-11-21\")}'/></xsl:template>",
    );
    assert_eq!(made(&sheet, "<a/>"), "<r a=\"8\" b=\"5\" c=\"2\" d=\"3\" e=\"2026\"/>");
}

#[test]
fn a_stylesheet_includes_and_imports_the_documents_beside_it() {
    let part = |body: &str| {
        format!(
            "<xsl:stylesheet version='1.0' xmlns:xsl='http://www.w3.org/1999/XSL/Transform'>{body}</xsl:stylesheet>"
        )
    };
    let with = |href: &str, documents: serde_json::Value| -> StylesheetDefinition {
        let text = part(&format!("<xsl:include href='{href}'/>"));
        serde_json::from_value(json!({"text": text, "documents": documents})).unwrap()
    };
    let first = part(
        "<xsl:import href='b.xsl'/><xsl:template match='/'><in><xsl:apply-imports/></in></xsl:template>",
    );
    let documents =
        json!({"parts/a.xsl": first, "parts/b.xsl": part("<xsl:template match='/'><b/></xsl:template>")});
    for href in ["parts/a.xsl", "./parts/a.xsl", "parts/../parts/a.xsl"] {
        assert_eq!(made(&with(href, documents.clone()), "<a/>"), "<in><b/></in>", "{href}");
    }
    let broken = with(
        "parts/c.xsl",
        json!({"parts/c.xsl": part("\n<xsl:template match='/'><xsl:b/></xsl:template>")}),
    );
    assert_eq!(faults(&broken)[0].detail, "parts/c.xsl: line 2, element b: unknown xsl:b");
    let circular = with("a.xsl", json!({"a.xsl": part("<xsl:include href='a.xsl'/>")}));
    assert!(faults(&circular)[0].detail.contains("recursion"), "{:?}", faults(&circular));
}

#[test]
fn documents_in_other_encodings_are_understood() {
    let copy = template("<xsl:copy-of select='.'/>");
    let of = |source: &[u8], charset: Option<&str>| {
        let source = Bytes::copy_from_slice(source);
        let work = Transformation { source, charset: charset.map(str::to_owned), ..transformation("") };
        run(&copy, work).map(|made| text(&made).to_owned())
    };
    let declared = b"<?xml version='1.0' encoding='iso-8859-1'?><a>\xe9</a>";
    assert!(of(declared, None).unwrap().contains("<a>é</a>"));
    assert!(of(b"<a>\xe9</a>", Some("iso-8859-1")).unwrap().contains("<a>é</a>"));
    // What the protocol says counts; the declaration may be older.
    let stale = "<?xml version='1.0' encoding='iso-8859-1'?><a>é</a>";
    assert!(of(stale.as_bytes(), Some("utf-8")).unwrap().contains("<a>é</a>"));
    let utf16: Vec<u8> = "\u{feff}<a>é</a>".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(of(&utf16, None).unwrap().contains("<a>é</a>"));
    assert_eq!(of(b"<a>\xe9</a>", None).unwrap_err().trouble, TransformTrouble::Source);
}

#[test]
fn a_stylesheet_that_is_wrong_is_refused_with_lines() {
    let told = |body: &str| {
        let found = faults(&definition(body));
        assert!(found.iter().all(|fault| fault.pointer == "/text"), "{found:?}");
        found.into_iter().map(|fault| fault.detail).collect::<Vec<_>>().join("\n")
    };
    for (body, line, word) in [
        ("\n<xsl:template match='/'>\n<xsl:value-of select='a['/></xsl:template>", "line 4", "a["),
        ("\n<xsl:template match='/'>\n\n<xsl:valueof select='a'/></xsl:template>", "line 5", "valueof"),
        ("<xsl:template match='/'><xsl:value-of slect='a'/></xsl:template>", "line 2", "select"),
        ("<xsl:template><a/></xsl:template>", "line 2", "match or name"),
        ("<xsl:template match='a['/>", "line 2", "a["),
        (
            "\n<xsl:include href='http://127.0.0.1:1/a.xsl'/>",
            "line 3",
            "not one of the definition's documents",
        ),
        ("\n\n<xsl:import href='/etc/passwd'/>", "line 4", "not one of the definition's documents"),
        ("<xsl:include href='../../etc/passwd'/>", "line 2", "unable to load"),
        ("<xsl:import href='gone.xsl'/>", "line 2", "unable to load gone.xsl"),
        ("<xsl:template match='/'><a></xsl:template>", "line 2", "a"),
        ("<xsl:output encoding='klingon'/>", "", "klingon"),
    ] {
        let told = told(body);
        assert!(told.contains(line) && told.contains(word), "{body}: {told}");
    }
    let two = told("<xsl:a/>\n<xsl:template match='/'><xsl:b/></xsl:template>");
    assert!(two.contains("line 2, element a") && two.contains("line 3, element b"), "{two}");
    for (text, word) in [
        ("<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>", "document type declaration"),
        ("<a/>", "no stylesheet"),
        ("no XML", "line 1"),
        ("<s:stylesheet version='3.0' xmlns:s='http://www.w3.org/1999/XSL/Transform'/>", "XSLT 1.0"),
    ] {
        let found = faults(&serde_json::from_value(json!({"text": text})).unwrap());
        assert!(found[0].detail.contains(word), "{found:?}");
    }
}

#[test]
fn what_only_its_use_shows_is_an_error_and_never_a_wrong_result() {
    for (content, word) in [
        ("<xsl:value-of select='nope(1)'/>", "line 2"),
        ("<xsl:value-of select='$nope'/>", "nope"),
        ("<xsl:call-template name='nope'/>", "nope"),
        ("<xsl:value-of select=\"concat('a')\"/>", "line 2"),
        ("<xsl:element name=\"{'a b'}\"/>", "a b"),
    ] {
        let (trouble, detail) = trouble(&template(content), "<a/>");
        assert_eq!(trouble, TransformTrouble::Failed, "{content}: {detail}");
        assert!(detail.contains(word), "{content}: {detail}");
    }
    // libxml2 gives NaN for what recurses too deep, and goes on.
    let deep = definition(
        "<func:function name='f:down'><xsl:param name='n'/><xsl:choose><xsl:when test='$n &gt; 0'>\
         <func:result select='1 + f:down($n - 1)'/></xsl:when><xsl:otherwise><func:result select='0'/>\
         </xsl:otherwise></xsl:choose></func:function>\
         <xsl:template match='/'><a><xsl:value-of select='f:down(9000)'/></a></xsl:template>",
    );
    let (trouble, detail) = trouble(&StylesheetDefinition { max_depth: 10_000, ..deep }, "<a/>");
    assert!(matches!(trouble, TransformTrouble::Failed | TransformTrouble::TooDeep), "{detail}");
}

#[test]
fn nothing_is_read_and_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (there, not_there) = (directory.path().join("there.xml"), directory.path().join("not-there.xml"));
    std::fs::write(&there, "<secret>word</secret>").unwrap();
    let (there, not_there) = (there.to_str().unwrap(), not_there.to_str().unwrap());
    for content in [
        format!("<xsl:copy-of select=\"document('{there}')\"/>"),
        format!("<xsl:copy-of select=\"document('file://{there}')\"/>"),
        format!("<xsl:copy-of select=\"document('{there}', /)\"/>"),
        "<xsl:copy-of select=\"document(/a/@href)\"/>".to_owned(),
        "<xsl:copy-of select=\"document('http://127.0.0.1:1/a.xml')\"/>".to_owned(),
        format!("<exsl:document href='{not_there}'><a/></exsl:document>"),
    ] {
        let source = format!("<a href='{there}'/>");
        let (trouble, detail) = trouble(&template(&content), &source);
        assert_eq!(trouble, TransformTrouble::Forbidden, "{content}: {detail}");
        assert!(detail.contains("not allowed"), "{detail}");
    }
    assert!(!std::path::Path::new(not_there).exists());
    // The stylesheet itself is no other document.
    let own = "<f:table><f:row k='a'>1</f:row></f:table><xsl:template match='/'><r><xsl:value-of \
               select=\"document('')/*/f:table/f:row[@k='a']\"/></r></xsl:template>";
    assert_eq!(made(&definition(own), "<a/>"), "<r>1</r>");
    // Inclusions are elements like any other.
    let include =
        format!("<a xmlns:i='http://www.w3.org/2001/XInclude'><i:include href='{there}' parse='text'/></a>");
    let copied = made(&template("<xsl:copy-of select='.'/>"), &include);
    assert!(copied.contains("i:include") && !copied.contains("word"), "{copied}");
    for doctype in [
        format!("<!DOCTYPE a [<!ENTITY b SYSTEM '{there}'>]><a>&b;</a>"),
        format!("<!DOCTYPE a SYSTEM '{there}'><a/>"),
        "<!DOCTYPE a [<!ENTITY b 'bb'>]><a>&b;</a>".to_owned(),
    ] {
        let (trouble, detail) = trouble(&template("<xsl:copy-of select='.'/>"), &doctype);
        assert_eq!((trouble, detail.contains("document type")), (TransformTrouble::Source, true), "{detail}");
    }
}

#[test]
fn documents_are_refused_with_their_places() {
    let copy = template("<xsl:copy-of select='.'/>");
    let (kind, detail) = trouble(&copy, "<a>\n<b></a>");
    assert_eq!((kind, detail.contains("line 2")), (TransformTrouble::Source, true), "{detail}");
    for source in ["", "no XML", "<a>&b;</a>", "<a><p:b/></a>"] {
        assert_eq!(trouble(&copy, source).0, TransformTrouble::Source, "{source}");
    }
    let deep = |depth: usize| "<a>".repeat(depth) + &"</a>".repeat(depth);
    assert!(run(&copy, transformation(&deep(MAX_DOCUMENT_DEPTH))).is_ok());
    let (kind, detail) = trouble(&copy, &deep(10_000));
    assert_eq!((kind, detail.contains("128")), (TransformTrouble::Source, true), "{detail}");
    let shallow = Transformation { depth: 3, ..transformation(&deep(4)) };
    assert_eq!(run(&copy, shallow).unwrap_err().trouble, TransformTrouble::Source);
    let mut attributes = String::new();
    for number in 0..100_000 {
        let _ = write!(attributes, " a{number}='1'");
    }
    assert_eq!(trouble(&copy, &format!("<a{attributes}/>")).0, TransformTrouble::Source);
}

/// What grows without end ends where its limits are, in bounded time.
#[test]
fn what_never_ends_is_ended() {
    let begun = Instant::now();
    let source = format!("<a>{}</a>", "<b>xx</b>".repeat(3_000));
    let each = |inner: &str| format!("<xsl:for-each select='//b'>{inner}</xsl:for-each>");
    let busy = each(&each(&each("<xsl:if test='1 = 2'>a</xsl:if>")));
    let slow = template(&format!("<o>{busy}</o>"));
    let slow = StylesheetDefinition { timeout_ms: 300, ..slow };
    let (kind, detail) = trouble(&slow, &source);
    assert_eq!(kind, TransformTrouble::Late, "{detail}");
    let expression = template("<o><xsl:value-of select='count(//b[//b[//b[. = 1]]])'/></o>");
    let expression = StylesheetDefinition { timeout_ms: 300, ..expression };
    assert_eq!(trouble(&expression, &source).0, TransformTrouble::Late);
    // Whoever asks may have less time than the stylesheet.
    let patient = StylesheetDefinition { timeout_ms: 600_000, ..slow };
    let hurried =
        Transformation { deadline: Instant::now() + Duration::from_millis(300), ..transformation(&source) };
    assert_eq!(run(&patient, hurried).unwrap_err().trouble, TransformTrouble::Late);
    let past = Transformation { deadline: Instant::now(), ..transformation("<a/>") };
    assert_eq!(run(&patient, past).unwrap_err().trouble, TransformTrouble::Late);
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn templates_that_call_themselves_are_ended_at_every_depth() {
    for depth in [1, 1_000, 10_000] {
        for inner in [
            "<xsl:call-template name='r'/>",
            "<b><xsl:for-each select='/'><xsl:element name='c'>\
            <xsl:call-template name='r'/></xsl:element></xsl:for-each></b>",
        ] {
            let sheet = definition(&format!(
                "<xsl:template match='/'><xsl:call-template name='r'/></xsl:template>\
                 <xsl:template name='r'>{inner}</xsl:template>"
            ));
            let (kind, detail) = trouble(&StylesheetDefinition { max_depth: depth, ..sheet }, "<a/>");
            assert_eq!(kind, TransformTrouble::TooDeep, "{depth}: {detail}");
            assert!(detail.contains(&depth.to_string()), "{detail}");
        }
    }
}

#[test]
fn large_results_are_refused() {
    let source = format!("<a>{}{}</a>", "<b/>".repeat(1_000), "x".repeat(3_000));
    let copies = template("<o><xsl:for-each select='//b'><xsl:value-of select='/'/></xsl:for-each></o>");
    assert!(run(&copies, transformation(&source)).unwrap().body.len() > 3_000_000);
    let small = StylesheetDefinition { max_output_bytes: 1_000_000, ..copies };
    let (kind, detail) = trouble(&small, &source);
    assert_eq!((kind, detail.contains("1000000")), (TransformTrouble::TooLarge, true), "{detail}");
    let doubling = definition(
        "<xsl:template match='/'><o><xsl:call-template name='r'><xsl:with-param name='s' select=\"'0123456789'\"/>\
         </xsl:call-template></o></xsl:template><xsl:template name='r'><xsl:param name='s'/>\
         <xsl:call-template name='r'><xsl:with-param name='s' select='concat($s, $s)'/></xsl:call-template>\
         </xsl:template>",
    );
    let (kind, detail) = trouble(&doubling, "<a/>");
    assert_eq!((kind, detail.contains("memory")), (TransformTrouble::TooLarge, true), "{detail}");
}

#[test]
fn a_stylesheet_has_its_say() {
    let says = template("<xsl:message>one</xsl:message><xsl:message>two&#10;lines</xsl:message><o/>");
    assert_eq!(run(&says, transformation("<a/>")).unwrap().messages, ["one", "two\nlines"]);
    let refuses = template(
        "<xsl:message>one</xsl:message><xsl:if test='not(/a/@id)'>\
        <xsl:message terminate='yes'>an order needs an id</xsl:message></xsl:if><o/>",
    );
    let (kind, detail) = trouble(&refuses, "<a/>");
    assert_eq!((kind, detail.as_str()), (TransformTrouble::Terminated, "an order needs an id"));
    assert!(run(&refuses, transformation("<a id='1'/>")).is_ok());
}

#[test]
fn many_threads_use_one_stylesheet_at_once() {
    let sheet = definition(
        "<xsl:key name='k' match='b' use='@n'/><xsl:template match='/'><o id='{generate-id(/a)}'>\
         <xsl:for-each select='//b'><xsl:sort select='@n' data-type='number' order='descending'/>\
         <xsl:value-of select=\"count(key('k', @n))\"/>:<xsl:number value='@n'/>,</xsl:for-each></o></xsl:template>",
    );
    let sheet = Arc::new(Sheet::open(&sheet).unwrap());
    let threads: Vec<_> = (1..=8)
        .map(|thread| {
            let sheet = Arc::clone(&sheet);
            std::thread::spawn(move || {
                for round in 1..=50 {
                    let lines: String = (1..=thread).map(|n| format!("<b n='{}'/>", n * round)).collect();
                    let made = wait(sheet.transform(transformation(&format!("<a>{lines}</a>")))).unwrap();
                    let expected: String = (1..=thread).rev().map(|n| format!("1:{},", n * round)).collect();
                    assert!(text(&made).contains(&format!(">{expected}</o>")), "{}", text(&made));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
