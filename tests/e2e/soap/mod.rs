//! SOAP channels as clients that nobody here wrote see them: zeep, gSOAP, and PHP's SoapClient read the generated
//! description and call everything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crosstie_test_support::{Environment, wait_until};
use serde_json::json;
use tempfile::TempDir;

const PASSWORD: &str = "pässword-8c21";

/// Where gSOAP's own sources are.
const GSOAP: &str = "/usr/share/gsoap";

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/soap").join(file)
}

/// An environment that serves the matrix.
fn served() -> Environment {
    let environment = Environment::start().unwrap();
    environment.drop_file("matrix.py", &fs::read_to_string(here("matrix.py")).unwrap()).unwrap();
    environment.wait_for_status("/matrix?wsdl", 200);
    environment
}

fn apply(environment: &Environment, text: &str) {
    environment.command(&["apply", "-f", "-"]).unwrap().input(text).run().unwrap().success().unwrap();
}

/// Runs a client to its end; what it says is shown where it does not succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: make test-packages"));
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{said}{told}");
    said.into_owned()
}

#[test]
fn zeep_calls_everything() {
    let environment = served();
    for version in ["1.1", "1.2"] {
        run(Command::new("/usr/bin/python3")
            .arg(here("client.py"))
            .args([version, &environment.url("/matrix")]));
        wait_until("the note is taken", || {
            environment.log_tail("server.log").contains(&format!("noted zeep {version}"))
        });
    }
    let beside = json!({"channel": {"beside": {"type": "soap", "path": "/beside", "namespace": "urn:example:matrix",
        "service_name": "Matrix", "mtom": "always", "operations": {"Store": "matrix.store"}}}});
    apply(&environment, &beside.to_string());
    environment.wait_for_status("/beside?wsdl", 200);
    run(Command::new("/usr/bin/python3")
        .arg(here("client.py"))
        .args(["beside", &environment.url("/beside")]));
}

#[test]
fn zeep_php_and_gsoap_call_a_channel_of_rpc_style() {
    let environment = Environment::start().unwrap();
    environment.drop_file("calls.py", &fs::read_to_string(here("calls_services.py")).unwrap()).unwrap();
    let described = environment.wait_for_status("/calls?wsdl", 200).text();
    assert!(described.contains("style=\"rpc\"") && !described.contains("style=\"document\""), "{described}");
    let url = environment.url("/calls");
    for version in ["1.1", "1.2"] {
        run(Command::new("/usr/bin/python3").arg(here("calls.py")).args([version, &url]));
        run(Command::new("php").arg(here("calls.php")).args([version, &url]));
        for client in ["zeep", "php"] {
            wait_until("the note is taken", || {
                environment.log_tail("server.log").contains(&format!("noted {client} calls {version}"))
            });
        }
    }
    let desk = TempDir::new().unwrap();
    let shell = |text: &str| run(Command::new("sh").args(["-ec", text]).current_dir(desk.path()));
    shell(&format!("curl -sf '{url}?wsdl' > calls.wsdl"));
    shell("wsdl2h -c -o calls.h calls.wsdl 2>&1");
    fs::copy(here("calls.c"), desk.path().join("calls.c")).unwrap();
    for version in ["1", "2"] {
        shell(&format!("soapcpp2 -{version} -c -C -L -x -I/usr/share/gsoap/import calls.h 2>&1"));
        shell("cc -w -o calls calls.c soapC.c soapClient.c -lgsoap 2>&1");
        run(Command::new(desk.path().join("calls")).arg(&url));
    }

    // What could be null cannot be a part; the version before serves on.
    let maybe = fs::read_to_string(here("calls_services.py")).unwrap();
    let maybe = maybe.replace("    term: list[int]\n", "    term: list[int] | None\n");
    environment.drop_file("calls.py", &maybe).unwrap();
    wait_until("it is told why", || environment.log_tail("server.log").contains("may be null, and a part"));
    run(Command::new("/usr/bin/python3").arg(here("calls.py")).args(["1.1", &url]));
}

#[test]
fn the_soap_client_of_php_calls_everything() {
    let environment = served();
    for version in ["1.1", "1.2"] {
        run(Command::new("php").arg(here("client.php")).args([version, &environment.url("/matrix")]));
        wait_until("the note is taken", || {
            environment.log_tail("server.log").contains(&format!("noted php {version}"))
        });
    }
}

#[test]
fn gsoap_calls_everything_with_binaries_in_and_beside_the_envelope() {
    let environment = served();
    let desk = TempDir::new().unwrap();
    let shell = |text: &str| run(Command::new("sh").args(["-ec", text]).current_dir(desk.path()));
    shell(&format!("curl -sf '{}?wsdl' > matrix.wsdl", environment.url("/matrix")));
    shell("wsdl2h -c -O1 -o matrix.h matrix.wsdl 2>&1");
    fs::copy(here("client.c"), desk.path().join("client.c")).unwrap();
    for version in ["1", "2"] {
        shell(&format!("soapcpp2 -{version} -c -C -L -x -pmatrix -I/usr/share/gsoap/import matrix.h 2>&1"));
        shell("cc -w -o client client.c matrixC.c matrixClient.c -lgsoap 2>&1");
        let version = format!("1.{version}");
        run(Command::new(desk.path().join("client")).args([&version, &environment.url("/matrix")]));
    }
    wait_until("what came beside the envelope is told", || {
        environment.log_tail("server.log").contains("stored with 1 attachments")
    });
}

/// A channel that demands a username token.
fn guarded() -> Environment {
    let environment = served();
    apply(
        &environment,
        &format!(
            "security:\n  partners:\n    type: wss_username_token\n    username: shop\n    password: '{PASSWORD}'\n\
             channel:\n  guarded:\n    type: soap\n    path: /guarded\n    namespace: urn:example:matrix\n\
             \x20   service_name: Matrix\n    security: partners\n    operations: {{Who: matrix.who}}\n"
        ),
    );
    environment
}

#[test]
fn zeep_php_and_gsoap_show_username_tokens() {
    let environment = guarded();
    let shown = [environment.url("/guarded"), "shop".to_owned(), PASSWORD.to_owned()];
    run(Command::new("/usr/bin/python3").arg(here("client.py")).arg("token").args(&shown));
    for version in ["1.1", "1.2"] {
        run(Command::new("php").arg(here("client.php")).arg(version).args(&shown));
    }
    let desk = TempDir::new().unwrap();
    let shell = |text: &str| run(Command::new("sh").args(["-ec", text]).current_dir(desk.path()));
    shell(&format!("curl -sf '{}?wsdl' > matrix.wsdl", shown[0]));
    shell("wsdl2h -c -O1 -o described.h matrix.wsdl 2>&1");
    shell("printf '#import \"wsse.h\"\n' | cat - described.h > matrix.h");
    fs::copy(here("token.c"), desk.path().join("token.c")).unwrap();
    for version in ["1", "2"] {
        shell(&format!(
            "soapcpp2 -{version} -c -C -L -x -I{GSOAP}/import:{GSOAP}/custom:{GSOAP}/plugin matrix.h 2>&1"
        ));
        shell(&format!(
            "cc -w -O0 -DWITH_OPENSSL -DWITH_DOM -I. -I{GSOAP}/plugin -o token token.c soapC.c soapClient.c \
             {GSOAP}/plugin/wsseapi.c {GSOAP}/plugin/smdevp.c {GSOAP}/plugin/mecevp.c {GSOAP}/custom/struct_timeval.c \
             -lgsoapssl -lssl -lcrypto -lz 2>&1"
        ));
        run(Command::new(desk.path().join("token")).args(&shown));
    }
    wait_until("the audit tells of refused credentials", || {
        environment.log_tail("server.log").contains("wss_username_token")
    });
    for log in ["server.log", "access.log"] {
        assert!(!environment.log_tail(log).contains(PASSWORD), "{log}");
    }
}

/// A message with a token as zeep makes it, recorded.
fn recorded(environment: &Environment) -> Vec<u8> {
    let script = format!(
        "import sys, zeep\nfrom zeep.wsse.username import UsernameToken\nfrom lxml import etree\n\
         client = zeep.Client(sys.argv[1] + '?wsdl', wsse=UsernameToken('shop', '{PASSWORD}', use_digest=True))\n\
         node = client.create_message(client.bind('Matrix', 'MatrixSoap'), 'Who')\n\
         sys.stdout.buffer.write(etree.tostring(node))"
    );
    let output = Command::new("/usr/bin/python3")
        .args(["-c", &script, &environment.url("/guarded")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn a_recorded_message_is_refused_by_every_worker_also_after_a_restart() {
    let environment = guarded();
    let message = recorded(&environment);
    let send = || environment.http().post("/guarded", "text/xml", &message).unwrap();
    let first = send();
    assert_eq!(first.status, 200, "{}", first.text());
    assert!(first.text().contains(">shop<"), "{}", first.text());
    for _ in 0..8 {
        let again = send();
        assert_eq!(again.status, 500);
        assert!(again.text().contains("wsse:FailedAuthentication"), "{}", again.text());
    }
    environment.stop().unwrap();
    environment.start_again().unwrap();
    wait_until("it serves again", || environment.http().get("/guarded?wsdl").is_ok_and(|r| r.status == 200));
    assert_eq!(send().status, 500);
    assert_eq!(environment.http().post("/guarded", "text/xml", &recorded(&environment)).unwrap().status, 200);
    wait_until("the replay is told", || environment.log_tail("server.log").contains("replayed"));
}

#[test]
fn a_description_is_a_definition_that_channels_refer_to() {
    let environment = served();
    let wsdl = environment.http().get("/matrix?wsdl").unwrap().text();
    let definition = json!({"wsdl": {"theirs": {"text": wsdl}}});
    apply(&environment, &definition.to_string());
    let channel = json!({"channel": {"again": {"type": "soap", "path": "/again", "wsdl": "theirs",
        "operations": {"Refuse": "matrix.refuse"}}}});
    apply(&environment, &channel.to_string());
    let described = environment.wait_for_status("/again?wsdl", 200).text();
    assert!(described.contains(&format!("location=\"{}\"", environment.url("/again"))), "{described}");
    let body = "<s:Envelope xmlns:s='http://schemas.xmlsoap.org/soap/envelope/'><s:Body>\
        <Refuse xmlns='urn:example:matrix'><text>so</text></Refuse></s:Body></s:Envelope>";
    let reply = environment.http().post("/again", "text/xml", body.as_bytes()).unwrap();
    assert!(
        reply.status == 500 && reply.text().contains("<faultstring>so</faultstring>"),
        "{}",
        reply.text()
    );

    // Of rpc style: each part of a message is a parameter, and clients see several results.
    let rpc = json!({"wsdl": {"sums": {"text": include_str!("sums.wsdl")}},
        "channel": {"sums": {"type": "soap", "path": "/sums", "wsdl": "sums", "operations": {"Add": "matrix.add"}}}});
    apply(&environment, &rpc.to_string());
    let url = format!("{}?wsdl", environment.url("/sums"));
    environment.wait_for_status("/sums?wsdl", 200);
    let zeep = "import sys, zeep\nanswer = zeep.Client(sys.argv[1]).service.Add(label='x', terms={'term': [1, 2, 39]})\n\
                assert (answer['label'], answer['sum']) == ('x', 42), answer";
    run(Command::new("/usr/bin/python3").args(["-c", zeep, &url]));
    let php = "ini_set('soap.wsdl_cache_enabled', '0'); $client = new SoapClient($argv[1]); \
               $answer = $client->Add('x', ['term' => [1, 2, 39]]); \
               if ($answer !== ['label' => 'x', 'sum' => 42]) { var_dump($answer); exit(1); }";
    run(Command::new("php").args(["-r", php, "--", &url]));

    let refused = |text: &str| {
        let command = environment.command(&["apply", "-f", "-"]).unwrap();
        let outcome = command.input(text).run().unwrap();
        assert_ne!(outcome.code, 0, "{}", outcome.stdout);
        outcome.stderr
    };
    let wrong = channel.to_string().replace("\"Refuse\"", "\"Missing\"");
    assert!(refused(&wrong).contains("describes no such operation"));
    let broken = definition.to_string().replace("theirs", "broken").replace("<wsdl:types>", "<wsdl:typos>");
    assert!(refused(&broken).contains("/text"));
    let outcome = environment.command(&["delete", "wsdl", "theirs"]).unwrap().run().unwrap();
    assert_ne!(outcome.code, 0);
}
