//! Compiles the C side of the wrapper and links the libraries that it wraps, which are the distribution's.

#![allow(clippy::print_stdout, reason = "this is how Cargo is told")]

fn main() {
    println!("cargo::rerun-if-changed=src/libxslt.c");
    // Each brings the libraries that it stands on.
    let libraries: Result<Vec<_>, _> =
        ["libexslt", "libxslt"].into_iter().map(|name| pkg_config::Config::new().probe(name)).collect();
    let libraries = match libraries {
        Ok(libraries) => libraries,
        Err(error) => {
            println!("cargo::error=libxslt is missing: install libxslt1-dev and pkg-config ({error})");
            return;
        }
    };
    cc::Build::new()
        .file("src/libxslt.c")
        .includes(libraries.iter().flat_map(|library| &library.include_paths))
        .std("gnu11")
        .warnings(true)
        .compile("crosstie_xslt");
}
