//! The pages of the project must not point at what is not there.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_relative_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = Vec::new();
    markdown_files(&root, &mut pages);
    assert!(pages.iter().any(|page| page.ends_with("README.md")));
    let mut broken = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).expect("a page is UTF-8 text");
        for link in links(&text) {
            let path = link.split('#').next().unwrap_or_default();
            let foreign = path.contains("://") || path.starts_with("mailto:") || path.is_empty();
            if !foreign && !page.parent().is_some_and(|directory| directory.join(path).exists()) {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

/// The stored outputs of the commands list the fields of their documents; the page names each one at the top.
#[test]
fn the_page_of_json_names_every_field() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(here.join("../../docs/reference/json.md")).expect("the page is there");
    let (mut missing, mut count) = (Vec::new(), 0);
    for stored in fs::read_dir(here.join("tests/cli/golden")).expect("outputs are stored").flatten() {
        let text = fs::read_to_string(stored.path()).expect("stored output is text");
        for line in text.lines().skip_while(|line| !line.ends_with("--json")).skip(1) {
            let field = line.split(['.', '[', ':']).next().unwrap_or_default();
            count += 1;
            // Lists are written with their brackets.
            if !page.contains(&format!("`{field}`")) && !page.contains(&format!("`{field}[]`")) {
                missing.push(format!("{}: {field}", stored.path().display()));
            }
        }
    }
    assert!(count > 200, "{count} fields");
    assert!(missing.is_empty(), "docs/reference/json.md lacks\n{}", missing.join("\n"));
}

#[test]
fn links_are_found_in_text_and_images() {
    let text = "a [b](c.md) ![d](e.svg) [f](https://g.h/i_(j)) `x](y` [k](l.md#m)";
    assert_eq!(links(text), ["c.md", "e.svg", "https://g.h/i_(j", "l.md#m"]);
}

/// Markdown at the top, and anywhere below the folders that hold some.
fn markdown_files(root: &Path, pages: &mut Vec<PathBuf>) {
    let mut waiting =
        ["docs", "benches", "crates", "examples", "fuzz"].map(|folder| root.join(folder)).to_vec();
    let top = fs::read_dir(root).expect("the workspace root exists").flatten().map(|entry| entry.path());
    pages.extend(top.filter(|path| path.extension().is_some_and(|e| e == "md")));
    while let Some(directory) = waiting.pop() {
        for path in fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                // What was built or found there is not ours.
                let skipped = ["target", "corpus", "artifacts"].iter().any(|name| path.ends_with(name));
                if !skipped {
                    waiting.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
}

/// The targets of inline links; spans of code are skipped.
fn links(text: &str) -> Vec<&str> {
    let prose = text.split('`').step_by(2);
    prose.flat_map(|part| part.split("](").skip(1)).filter_map(|after| after.split(')').next()).collect()
}
