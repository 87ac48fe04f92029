//! Units: what each may see, what is refused, and what is left when one goes.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crosstie_model::names::UnitName;
use crosstie_model::ports::{LoadError, Runtime};
use crosstie_model::unit::{Artifact, ArtifactKind, UnitManifest};
use crosstie_runtime::python::check;
use serde_json::json;

use crate::support::{World, file, get, library, package};

fn service(name: &str, body: &str) -> String {
    format!(
        "from crosstie import Service\nclass S(Service):\n    name = {name:?}\n    def handle(self):\n        {body}\n"
    )
}

#[tokio::test]
async fn units_with_modules_of_the_same_name_never_see_each_other() {
    let world = World::new();
    let files = |name: &str| {
        let init = format!(
            "import config_of\nfrom . import shared\nfrom .sub import deep\nimport {name}.shared as again\n\
             from crosstie import Service\nclass S(Service):\n    name = '{name}.s'\n    def handle(self):\n        \
             import importlib, {name}.sub.deep\n        \
             late = importlib.import_module('{name}.shared'), importlib.import_module('.shared', __package__)\n        \
             return [shared.VALUE, deep.VALUE, again is shared, late[0] is shared, late[1] is shared, __file__]\n"
        );
        vec![
            ("__init__.py".to_owned(), init.replace("import config_of\n", "")),
            ("shared.py".to_owned(), format!("VALUE = '{name}'\n")),
            (
                "sub/deep.py".to_owned(),
                format!(
                    "from ..shared import VALUE as V\nimport {name}.shared\nVALUE = V + str({name}.shared.VALUE == V)\n"
                ),
            ),
        ]
    };
    for name in ["one", "two"] {
        let files = files(name);
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        world
            .deploy_with(&package(name, &files), None)
            .await
            .unwrap_or_else(|error| panic!("{error} {}", error.detail));
    }
    for name in ["one", "two"] {
        let answer = world.json(&format!("{name}.s"), get()).await;
        assert_eq!(
            answer,
            json!([name, format!("{name}True"), true, true, true, format!("{name}/__init__.py")])
        );
    }
    // What another unit is called is no module either.
    let error = world.refusal("three", &("import one\n".to_owned() + &service("three", "pass"))).await;
    assert!(error.message.contains("No module named 'one'"), "{error}");
}

#[tokio::test]
async fn two_versions_of_a_unit_run_side_by_side() {
    let world = World::new();
    let old = world.deploy("v", &service("v", "return 1")).await;
    world.deploy("v", &service("v", "return 2")).await;
    assert_eq!(world.json("v", get()).await, json!(2));
    let reply = old.services[0].invoke(get().message).await.unwrap();
    assert_eq!(crate::support::value_of(&reply), json!(1));
}

#[tokio::test]
async fn library_modules_are_shared_by_version() {
    let world = World::new();
    let lib = |version: u32| {
        let text = format!("import counter.deep\nVERSION = {version}\n");
        library(&[
            ("shared.py", &text),
            ("counter/__init__.py", ""),
            ("counter/deep.py", "seen = []\n"),
            ("unused.py", ""),
        ])
    };
    let user = |name: &str| {
        format!(
            "from crosstie import Service\nimport shared\nclass S(Service):\n    name = {name:?}\n    def handle(self):\n        \
             from counter.deep import seen\n        seen.append({name:?})\n        return [shared.VERSION, list(seen)]\n"
        )
    };
    let (one, two) = (file("one", &user("one")), file("two", &user("two")));
    let first = lib(1);
    let manifest = world.runtime.describe(&one, Some(&first)).await.unwrap();
    assert_eq!(manifest.library_modules, ["counter", "counter.deep", "shared"]);
    assert_eq!(manifest.library, Some(first.digest));
    let loaded = world.deploy_with(&one, Some(&first)).await.unwrap();
    assert_eq!(loaded.library, Some(first.digest));
    world.deploy_with(&two, Some(&first)).await.unwrap();
    assert_eq!(world.json("one", get()).await, json!([1, ["one"]]));
    assert_eq!(world.json("two", get()).await, json!([1, ["one", "two"]]));
    world.deploy_with(&two, Some(&lib(2))).await.unwrap();
    assert_eq!(world.json("two", get()).await, json!([2, ["two"]]));
    assert_eq!(world.json("one", get()).await, json!([1, ["one", "two", "one"]]));
    let none = world.runtime.describe(&file("n", &service("n", "pass")), Some(&first)).await.unwrap();
    assert_eq!((none.library_modules.len(), none.library), (0, None));
    // A library is compiled when it is checked, and run by those that use it.
    assert!(world.runtime.describe(&first, None).await.unwrap().services.is_empty());
    let broken = library(&[("bad.py", "def x(:\n")]);
    let error = world.runtime.describe(&broken, None).await.unwrap_err();
    assert!(error.message.starts_with("lib/bad.py, line 1: SyntaxError"), "{error}");
}

#[tokio::test]
async fn a_package_finds_the_files_beside_it() {
    let world = World::new();
    let source = "from crosstie import Service\nimport pkgutil\nfrom importlib import resources\n\
                  class S(Service):\n    name = 'files'\n    def handle(self):\n        \
                  r = resources.files(__package__)\n        \
                  return [pkgutil.get_data(__name__, 'data/a.txt').decode(), (r / 'data' / 'a.txt').read_text(), \
                  sorted(e.name for e in r.iterdir())]\n";
    let unit = package(
        "files",
        &[("__init__.py", source), ("data/a.txt", "hello"), ("tests/test_x.py", "import nothing\n")],
    );
    world.deploy_with(&unit, None).await.unwrap_or_else(|error| panic!("{error} {}", error.detail));
    assert_eq!(world.json("files", get()).await, json!(["hello", "hello", ["__init__.py", "data", "tests"]]));
}

#[tokio::test]
async fn services_of_every_module_of_a_package_are_found() {
    let world = World::new();
    let base = "from crosstie import Service\nclass _Base(Service):\n    def handle(self):\n        return self.get_name()\n";
    let user = "from .base import _Base, Service\nclass GetCustomer(_Base):\n    pass\nclass NoHandler(Service):\n    pass\n";
    let unit = package("crm", &[("__init__.py", ""), ("base.py", base), ("customers.py", user)]);
    let loaded = world.deploy_with(&unit, None).await.unwrap();
    let names: Vec<_> =
        loaded.services.iter().map(|service| service.description().name.to_string()).collect();
    assert_eq!(names, ["crm.customers.get-customer"]);
    assert_eq!(world.json("crm.customers.get-customer", get()).await, json!("crm.customers.get-customer"));
}

#[tokio::test]
async fn what_cannot_be_deployed_says_why_in_one_line() {
    let world = World::new();
    for (source, expected) in [
        ("", "bad.py defines no service"),
        ("def x(:\n  pass\n", "bad.py, line 1: SyntaxError: invalid syntax"),
        ("x = 1\n  y = 2\n", "bad.py, line 2: IndentationError: unexpected indent"),
        ("a\0b", "null bytes"),
        (
            "x = 1\nimport nothing_here\n",
            "bad.py, line 2: ModuleNotFoundError: No module named 'nothing_here' (`crosstie venv install`",
        ),
        ("def f():\n    return 1 / 0\n\nf()\n", "bad.py, line 2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", "bad.py, line 2: the code calls sys.exit(3) when it is imported"),
        ("raise KeyboardInterrupt\n", "bad.py, line 1: KeyboardInterrupt"),
        ("from crosstie import Nope\n", "bad.py, line 1: ImportError: cannot import name 'Nope'"),
        (
            "from crosstie import Service\nclass A(Service):\n  name='x'\n  def handle(self): pass\nclass B(Service):\n  name='x'\n  def handle(self): pass\n",
            "bad.py, line 7: class B and bad.py, line 4: class A are both named 'x'",
        ),
        (
            "from crosstie import Service\nclass A(Service):\n  name='a/b'\n  def handle(self): pass\n",
            "class A: '/' is not allowed",
        ),
        (
            "from crosstie import Service\nclass A(Service):\n  name=5\n  def handle(self): pass\n",
            "is text, not 5",
        ),
        (
            "from crosstie import Service\nclass A(Service):\n  input='a'\n  def handle(self): pass\n",
            "input is a Model",
        ),
        (
            "from crosstie import *\nclass M(Model):\n  x: object()\nclass A(Service):\n  input=M\n  def handle(self): pass\n",
            "field x of M",
        ),
        (
            "from crosstie import *\nclass M(Model):\n  x: dict[int, str]\nclass A(Service):\n  output=M\n  def handle(self): pass\n",
            "the keys of a JSON object are text",
        ),
        (
            "from __future__ import annotations\nfrom crosstie import *\nclass M(Model):\n  x: Nowhere\nclass A(Service):\n  input=M\n  def handle(self): pass\n",
            "name 'Nowhere' is not defined",
        ),
        (
            "from crosstie import *\nclass M(Model):\n  x: str = field(pattern='(')\nclass A(Service):\n  input=M\n  def handle(self): pass\n",
            "not a valid JSON Schema",
        ),
        (
            "from crosstie import *\nclass A(Service):\n  channels=[rest('GET', 'no-slash', colour=1)]\n  def handle(self): pass\n",
            "/path",
        ),
        (
            "from crosstie import *\nclass A(Service):\n  channels=['/x']\n  def handle(self): pass\n",
            "'/x' is no channel",
        ),
        (
            "from crosstie import *\nclass A(Service):\n  deadline_ms=0\n  def handle(self): pass\n",
            "deadline_ms",
        ),
        (
            "from crosstie import *\nclass A(Service):\n  def handle_GET(self): pass\n  async def handle_POST(self): pass\n",
            "all `async def` or none",
        ),
    ] {
        let error = world.refusal("bad", source).await;
        assert!(error.message.contains(expected), "{expected:?} is not in {:?}", error.message);
        assert!(!error.message.contains('\n') && !error.message.contains("_ct"), "{:?}", error.message);
        assert!(
            !error.detail.contains("_ct") && !error.detail.contains("_crosstie_runtime"),
            "{}",
            error.detail
        );
    }
}

#[tokio::test]
async fn options_of_channels_in_code_reach_their_definition() {
    let world = World::new();
    let source = "from crosstie import *\nclass A(Service):\n  name='a'\n  channels=[\n\
                  rest('GET, POST', '/a/{id:int}', security='crm', deadline_ms=500, rate_limit=[{'limit': 5, 'per': 'second'}], openapi=False),\n\
                  http('/raw', methods=['PUT'], max_body_bytes=10), jsonrpc('/rpc', method='add', max_batch=5, openrpc=False)]\n  def handle(self): pass\n";
    let manifest = world.runtime.describe(&file("a", source), None).await.unwrap();
    let channels = serde_json::to_value(&manifest.services[0].channels).unwrap();
    assert_eq!(
        channels,
        json!([
            {"type": "rest", "path": "/a/{id:int}", "options": {
                "security": "crm", "deadline_ms": 500, "rate_limit": [{"limit": 5, "per": "second"}],
                "methods": ["GET", "POST"], "openapi": false
            }},
            {"type": "http", "path": "/raw", "options": {"max_body_bytes": 10, "methods": ["PUT"]}},
            {"type": "jsonrpc", "path": "/rpc", "options": {"method": "add", "max_batch": 5, "openrpc": false}},
        ])
    );
}

/// Runs the check in a process of its own, as the management API does.
fn checked(artifact: &Artifact, library: Option<&Artifact>) -> Result<UnitManifest, LoadError> {
    checked_in("/nonexistent".as_ref(), artifact, library)
}

fn checked_in(
    venv: &Path,
    artifact: &Artifact,
    library: Option<&Artifact>,
) -> Result<UnitManifest, LoadError> {
    let program =
        std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/check_unit");
    let mut child = Command::new(program)
        .arg(venv)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let request = check::encode_request(artifact, library);
    child.stdin.take().unwrap().write_all(&request).unwrap();
    check::decode_response(&child.wait_with_output().unwrap().stdout)
}

#[test]
fn a_check_in_its_own_process_answers_whatever_the_code_does() {
    let noisy = format!(
        "import os, sys, subprocess, threading, time\nprint('{{\"error\": 1}}', flush=True)\nos.write(1, b'noise')\n\
         subprocess.run(['echo', 'more noise'])\nthreading.Thread(target=time.sleep, args=(60,)).start()\n{}",
        service("noisy", "pass")
    );
    let manifest = checked(&file("noisy", &noisy), None).unwrap();
    assert_eq!(manifest.services[0].name.as_str(), "noisy");
    let error = checked(&file("gone", "import os\nos._exit(0)\n"), None).unwrap_err();
    assert!(error.message.contains("os._exit"), "{error}");
    let error = checked(&file("dead", "import os\nos.abort()\n"), None).unwrap_err();
    assert!(error.message.contains("ended the process"), "{error}");
    let error = checked(&file("bad", "1 / 0\n"), None).unwrap_err();
    assert!(error.message.starts_with("bad.py, line 1"), "{error}");
    assert!(error.detail.starts_with("Traceback"), "{}", error.detail);
    let garbage =
        Artifact::new(UnitName::new("x").unwrap(), ArtifactKind::PythonPackage, vec![7; 3000].into());
    let error = checked(&garbage, None).unwrap_err();
    assert!(error.message.contains("archive"), "{error}");
}

#[test]
fn packages_of_the_virtual_environment_can_be_imported() {
    let directory = tempfile::tempdir().unwrap();
    let venv = directory.path().join("venv");
    let made =
        Command::new("/usr/bin/python3").args(["-m", "venv", "--without-pip"]).arg(&venv).status().unwrap();
    assert!(made.success());
    std::fs::write(venv.join("lib/python3.11/site-packages/only_here.py"), "VALUE = 1\n").unwrap();
    let source = format!(
        "import sys, only_here\nassert sys.executable == {:?}, sys.executable\nassert only_here.VALUE == 1\n\
         assert not [p for p in sys.path if 'dist-packages' in p], sys.path\n{}",
        venv.join("bin/python3"),
        service("venv", "pass")
    );
    let unit = file("venv", &source);
    checked_in(&venv, &unit, None).unwrap_or_else(|error| panic!("{error}"));
    let error = checked(&unit, None).unwrap_err();
    assert!(error.message.contains("No module named 'only_here'"), "{error}");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs the test `name` in a process of its own, where the memory is that of nobody else; says whether this is it.
fn is_alone(name: &str) -> bool {
    const ALONE: &str = "CROSSTIE_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut own = Command::new(std::env::current_exe().unwrap());
    let output = own.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}{told}");
    false
}

#[tokio::test]
async fn hundreds_of_redeploys_leave_no_memory_behind() {
    if !is_alone("units::hundreds_of_redeploys_leave_no_memory_behind") {
        return;
    }
    let world = World::new();
    let source = |round: usize| {
        format!(
            r#"
import enum, logging, typing, functools, dataclasses
from crosstie import Model, Service
log = logging.getLogger(__name__)
TABLE = {{n: str(n) * 20 for n in range(2000)}}
class Kind(enum.Enum):
    A = "a"
class Inner(Model):
    kind: Kind = Kind.A
    values: typing.Optional[typing.List[int]] = None
class Out(Model):
    n: int
    inner: Inner = Inner()
    more: "list[Out]" = []
@functools.lru_cache
def cached(x): return x
class S(Service):
    name = "s"
    input = Out
    output = Out
    def handle(self):
        self.me = self
        log.debug("x")
        cached(5)
        return Out(n={round}, more=[self.request.input])
"#
        )
    };
    let mut after_first = 0;
    let rounds = 500;
    for round in 0..rounds {
        let unit = world.deploy("redeployed", &source(round)).await;
        let asked = crate::support::post(json!({"n": round}));
        assert_eq!(world.json("s", asked).await["n"], round);
        drop(unit);
        if round == 100 {
            after_first = resident_kib();
        }
    }
    let look = "import sys, gc, logging\nfrom crosstie import Service, Model\nclass L(Service):\n  name='look'\n  \
                def handle(self):\n    gc.collect()\n    mine = lambda name: name.endswith('.redeployed')\n    \
                return [len([m for m in sys.modules if mine(m)]), \
                len([n for n in logging.Logger.manager.loggerDict if mine(n)]), \
                len([c for c in gc.get_objects() if isinstance(c, type) and issubclass(c, Model) and mine(c.__module__)])]\n";
    world.deploy("look", look).await;
    // The last version, which is loaded, and nothing else.
    let mut left = json!(null);
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while left != json!([1, 1, 2]) {
        assert!(std::time::Instant::now() < limit, "left behind: {left}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        left = world.json("look", get()).await;
    }
    let last = resident_kib();
    assert!(
        last * 10 <= after_first * 11,
        "{after_first} KiB after 100 redeploys, {last} KiB after {rounds}"
    );
}
