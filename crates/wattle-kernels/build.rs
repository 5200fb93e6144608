//! Names what is built: a hash over the sources of the kernels and over how they are compiled, as `wattle_kernels::BUILD`.

use std::env;
use std::error::Error;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Environment variables of a build that decide which instructions come out of one source.
const COMPILED_FOR: [&str; 5] =
    ["TARGET", "CARGO_CFG_TARGET_FEATURE", "CARGO_ENCODED_RUSTFLAGS", "OPT_LEVEL", "PROFILE"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=build.rs");
    // The algorithm may change with the compiler, whose version is hashed too.
    let mut hasher = DefaultHasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.write_usize(bytes.len());
        hasher.write(bytes);
    };
    for file in files(Path::new("src"))? {
        add(file.to_string_lossy().as_bytes());
        add(&fs::read(&file)?);
    }
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    add(&Command::new(compiler).arg("-vV").output()?.stdout);
    for variable in COMPILED_FOR {
        add(env::var_os(variable).unwrap_or_default().to_string_lossy().as_bytes());
    }
    println!("cargo::rustc-env=WATTLE_KERNELS_BUILD={:016x}", hasher.finish());
    Ok(())
}

/// The files below a folder, in an order that no file system decides.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = vec![];
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
