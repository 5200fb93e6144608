//! Every crate we link or test with must carry a licence that lets anyone use wattle.

use std::process::Command;

use serde_json::Value;

/// Licences that ask for no more than a notice.
const ALLOWED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_dependency_has_an_allowed_licence() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("cargo metadata lists packages");
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(allowed))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert!(packages.len() > 8, "the workspace alone has more packages than {}", packages.len());
    assert!(refused.is_empty(), "licences outside the list of this test:\n{}", refused.join("\n"));
}

#[test]
fn every_workspace_dependency_is_explained() {
    let root = include_str!("../../../Cargo.toml");
    let page = include_str!("../../../docs/decisions/0001-dependencies.md");
    let section = root.split("[workspace.dependencies]").nth(1).and_then(|rest| rest.split("\n[").next());
    let names = section.unwrap_or("").lines().filter_map(|line| Some(line.split_once(" = ")?.0.trim()));
    let foreign: Vec<&str> = names.filter(|name| !name.starts_with("wattle-")).collect();
    assert!(foreign.len() > 10, "found only {foreign:?}");
    let missing: Vec<&&str> = foreign.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/decisions/0001-dependencies.md does not explain {missing:?}");
}

#[test]
fn a_choice_needs_one_allowed_licence_and_a_sum_needs_all() {
    for expression in [
        "MIT",
        "MIT OR Apache-2.0",
        "GPL-3.0-only OR MIT",
        "MIT/Apache-2.0",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0",
        "Zlib OR Apache-2.0 OR MIT",
    ] {
        assert!(allowed(expression), "{expression}");
    }
    for expression in [
        "GPL-3.0-only",
        "MIT AND GPL-3.0-only",
        "(MIT OR Apache-2.0) AND MPL-2.0",
        "MPL-2.0 OR GPL-2.0-only",
        "Apache-2.0 WITH Strange-exception",
        "MIT OR",
        "(MIT",
        "MIT Apache-2.0",
        "",
    ] {
        assert!(!allowed(expression), "{expression}");
    }
}

/// What cargo resolved for this machine. Offline: a test must not depend on the network.
fn metadata() -> Value {
    let cargo = env!("CARGO");
    let target = format!("--filter-platform={}", host());
    let output = Command::new(cargo)
        .args(["metadata", "--offline", "--format-version=1", &target])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo ran this test, so it can run again");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// The target triple of the compiler in use.
fn host() -> String {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(rustc).arg("-vV").output().expect("a compiler built this test");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc -vV names its host").to_owned()
}

/// Whether an SPDX expression can be satisfied with [`ALLOWED`] licences. `/` is the old way to write `OR`.
fn allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    matches!(any(&tokens), Some((true, [])))
}

/// `all (OR all)*`: the verdict and the tokens left over; `None` if this is no expression.
fn any<'a, 'b>(tokens: &'a [&'b str]) -> Option<(bool, &'a [&'b str])> {
    let (mut verdict, mut rest) = all(tokens)?;
    while let ["OR", after @ ..] = rest {
        let (next, after) = all(after)?;
        (verdict, rest) = (verdict || next, after);
    }
    Some((verdict, rest))
}

/// `one (AND one)*`.
fn all<'a, 'b>(tokens: &'a [&'b str]) -> Option<(bool, &'a [&'b str])> {
    let (mut verdict, mut rest) = one(tokens)?;
    while let ["AND", after @ ..] = rest {
        let (next, after) = one(after)?;
        (verdict, rest) = (verdict && next, after);
    }
    Some((verdict, rest))
}

/// A licence, with its exception if any, or an expression in brackets.
fn one<'a, 'b>(tokens: &'a [&'b str]) -> Option<(bool, &'a [&'b str])> {
    match tokens {
        ["(", inner @ ..] => match any(inner)? {
            (verdict, [")", rest @ ..]) => Some((verdict, rest)),
            _ => None,
        },
        [")" | "AND" | "OR" | "WITH", ..] | [] => None,
        [licence, "WITH", exception, rest @ ..] => {
            Some((ALLOWED.contains(&format!("{licence} WITH {exception}").as_str()), rest))
        }
        [licence, rest @ ..] => Some((ALLOWED.contains(licence), rest)),
    }
}
