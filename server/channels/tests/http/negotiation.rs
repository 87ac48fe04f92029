use serde_json::json;

use crate::support::Setup;

fn setup() -> Setup {
    Setup::new()
        .http(|http| http.compression_min_bytes = 1_000)
        .channel("any", json!({"type": "rest", "path": "/any", "service": "echo"}))
        .channel("typed", json!({"type": "rest", "path": "/typed", "service": "typed"}))
        .channel("xml", json!({"type": "rest", "path": "/xml", "service": "echo", "data_format": "xml"}))
        .channel("reply", json!({"type": "rest", "path": "/reply", "service": "reply"}))
        .channel("big", json!({"type": "http", "path": "/big", "service": "big"}))
        .channel("stream", json!({"type": "http", "path": "/stream", "service": "stream"}))
}

#[test]
fn the_client_gets_json_or_xml_or_406() {
    let server = setup().start();
    let mut client = server.connect();
    let answer = client.get("/any", "");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("vary"), Some("accept"));
    let answer = client.get("/any", "Accept: application/xml\r\n");
    assert_eq!(answer.header("content-type"), Some("application/xml; charset=utf-8"));
    assert!(answer.text().contains("<response><method>GET</method>"), "{}", answer.text());
    assert_eq!(answer.header("vary"), Some("accept"));
    let answer = client.get("/xml", "");
    assert_eq!(answer.header("content-type"), Some("application/xml; charset=utf-8"));
    assert_eq!(answer.header("vary"), None, "there was nothing to choose");
    assert_eq!(client.get("/any", "Accept: image/png\r\n").status, 406);
    assert_eq!(client.get("/xml", "Accept: application/json\r\n").status, 406);
    let answer = client.get("/reply?text=a&type=image/png", "Accept: image/png\r\n");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
}

#[test]
fn a_service_with_declared_output_does_not_run_in_vain() {
    let server = setup().start();
    let mut client = server.connect();
    assert_eq!(client.get("/typed", "Accept: image/png\r\n").status, 406);
    // A malformed body would have been noticed had decoding begun.
    let answer = client.post("/typed", "Accept: image/png\r\nContent-Type: application/json\r\n", "{");
    assert_eq!(answer.status, 406);
}

#[test]
fn large_replies_are_compressed_for_clients_that_accept_it() {
    let server = setup().start();
    let mut client = server.connect();
    for (size, coding) in [(1_000, "gzip"), (2_000_000, "gzip"), (2_000_000, "br"), (5_000, "zstd")] {
        let path = format!("/big?bytes={size}");
        let answer = client.get(&path, &format!("Accept-Encoding: {coding}\r\n"));
        assert_eq!(answer.header("content-encoding"), Some(coding), "{size}");
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        assert!(answer.body.len() < size / 5, "{coding} {size}: {}", answer.body.len());
        if coding == "gzip" {
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&answer.body[..]), &mut text)
                .unwrap();
            assert_eq!(text.len(), size);
        }
    }
    assert_eq!(client.get("/big?bytes=999", "Accept-Encoding: gzip\r\n").header("content-encoding"), None);
    assert_eq!(client.get("/big?bytes=5000", "").header("content-encoding"), None);
    assert_eq!(client.get("/stream", "Accept-Encoding: gzip\r\n").header("content-encoding"), None);
    let head = client.request("HEAD", "/big?bytes=5000", "Accept-Encoding: gzip\r\n", b"");
    assert_eq!(head.header("content-encoding"), Some("gzip"));
}

#[test]
fn compression_can_be_switched_off() {
    let server = setup().http(|http| http.compression = false).start();
    let answer = server.connect().get("/big?bytes=5000", "Accept-Encoding: gzip\r\n");
    assert_eq!((answer.header("content-encoding"), answer.body.len()), (None, 5000));
}
