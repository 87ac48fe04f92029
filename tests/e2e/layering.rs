//! Who may import whom: the layers of the crates, the third parties that are fenced into one crate each,
//! and where unsafe code may stand.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// The layers, lowest first. A crate imports lower layers only.
const LAYERS: [&[&str]; 5] = [
    &["crosstie-model"],
    &[
        "crosstie-amqp",
        "crosstie-config",
        "crosstie-odb",
        "crosstie-bus",
        "crosstie-process",
        "crosstie-security",
        "crosstie-telemetry",
        "crosstie-xml",
        "crosstie-xslt",
    ],
    &["crosstie-channels", "crosstie-outgoing", "crosstie-parts", "crosstie-runtime"],
    &["crosstie-api", "crosstie-lb", "crosstie-worker"],
    &["crosstie"],
];

/// Imports within one layer that the design names.
const WITHIN_A_LAYER: [(&str, &str); 3] = [
    ("crosstie-bus", "crosstie-amqp"),
    ("crosstie-worker", "crosstie-api"),
    ("crosstie-xslt", "crosstie-xml"),
];

/// Crates that may import less than their layer allows.
const NARROWER: [(&str, &[&str]); 3] = [
    ("crosstie-runtime", &["crosstie-model", "crosstie-xml"]),
    ("crosstie-channels", &["crosstie-model", "crosstie-security", "crosstie-xml"]),
    (
        "crosstie-outgoing",
        &["crosstie-amqp", "crosstie-model", "crosstie-security", "crosstie-telemetry", "crosstie-xml"],
    ),
];

/// Third parties that only the named crates may import, by prefix.
const FENCES: [(&str, &[&str]); 12] = [
    ("diesel", &["crosstie-odb"]),
    ("pyo3", &["crosstie-runtime"]),
    ("axum", &["crosstie-api"]),
    ("git2", &["crosstie-config"]),
    ("lapin", &["crosstie-amqp", "crosstie-bus", "crosstie-outgoing"]),
    ("quick-xml", &["crosstie-xml"]),
    ("rcgen", &["crosstie-security"]),
    ("clap", &["crosstie"]),
    ("anyhow", &["crosstie"]),
    ("rusqlite", &["crosstie-outgoing"]),
    ("mysql_async", &["crosstie-odb", "crosstie-outgoing"]),
    ("tokio-postgres", &["crosstie-odb", "crosstie-outgoing"]),
];

/// Crates that no server runs: tests and benchmarks.
const OUTSIDE: [&str; 2] = ["crosstie-test-support", "crosstie-bench"];

/// The only crates that may hold unsafe code.
const UNSAFE: [&str; 2] = ["crosstie-process", "crosstie-runtime"];

/// Thin wrappers of C libraries in other crates, one file each.
const WRAPPERS: [&str; 3] = [
    "server/config/src/repository/isolation.rs",
    "server/config/src/repository/reclaim.rs",
    "server/xslt/src/libxslt.rs",
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .unwrap()
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|crates| crates.contains(&name))
}

/// What `package` imports, for itself or to build.
fn imports(package: &Package) -> BTreeSet<String> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind != DependencyKind::Development)
        .map(|dependency| dependency.name.clone())
        .collect()
}

fn product(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    metadata.packages.iter().filter(|package| !OUTSIDE.contains(&package.name.as_str()))
}

#[test]
fn every_crate_has_a_layer() {
    let metadata = metadata();
    let without: Vec<_> = product(&metadata)
        .map(|package| package.name.as_str())
        .filter(|name| layer(name).is_none())
        .collect();
    assert!(without.is_empty(), "give these a layer: {without:?}");
    for name in LAYERS.concat() {
        assert!(metadata.packages.iter().any(|package| package.name.as_str() == name), "{name} is gone");
    }
}

#[test]
fn crates_import_lower_layers_only() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in product(&metadata) {
        let name = package.name.as_str();
        for import in imports(package) {
            let (Some(own), Some(other)) = (layer(name), layer(&import)) else { continue };
            let allowed = other < own || WITHIN_A_LAYER.contains(&(name, import.as_str()));
            let narrower = NARROWER
                .iter()
                .find(|(narrow, _)| *narrow == name)
                .is_none_or(|(_, only)| only.contains(&import.as_str()));
            if !allowed || !narrower {
                wrong.push(format!("{name} imports {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_that_a_server_runs_imports_tests_or_benchmarks() {
    for package in product(&metadata()) {
        let imported = imports(package);
        assert!(OUTSIDE.iter().all(|name| !imported.contains(*name)), "{}", package.name);
    }
}

#[test]
fn third_parties_stay_behind_their_fences() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in product(&metadata) {
        for import in imports(package) {
            let fence = FENCES.iter().find(|(prefix, _)| {
                import
                    .strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
            });
            if fence.is_some_and(|(_, inside)| !inside.contains(&package.name.as_str())) {
                wrong.push(format!("{} imports {import}", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_code_stands_in_two_crates_and_named_wrappers_only() {
    let metadata = metadata();
    for package in product(&metadata).filter(|package| !UNSAFE.contains(&package.name.as_str())) {
        let directory = package.manifest_path.parent().unwrap().join("src");
        for file in sources(directory.as_std_path()) {
            if WRAPPERS.iter().any(|wrapper| file.ends_with(wrapper)) {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            // The lint is `deny` for the whole workspace, so unsafe code needs its name near it.
            assert!(!text.contains("unsafe_code"), "{} allows unsafe code", file.display());
        }
    }
    let manifest = fs::read_to_string(metadata.workspace_root.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"deny\""), "the lint that this test relies on is gone");
}

#[test]
fn every_crate_obeys_the_lints_of_the_workspace() {
    for package in &metadata().packages {
        let manifest = fs::read_to_string(&package.manifest_path).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} has no lints", package.name);
    }
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
