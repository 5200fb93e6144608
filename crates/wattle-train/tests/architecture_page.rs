//! `docs/how/architecture.md` shows what the example prints at every stage.

#[path = "../examples/stages.rs"]
mod stages;

use std::path::Path;

#[test]
fn the_page_shows_what_the_stages_print() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/how/architecture.md");
    let mut page = std::fs::read_to_string(&path).expect("the page is part of the repository");
    let committed = page.clone();
    for (name, text) in stages::stages().expect("the example runs") {
        let (begin, end) = (format!("<!-- stage: {name} -->\n```text\n"), "\n```\n");
        let start = page.find(&begin).unwrap_or_else(|| panic!("no place for `{name}`")) + begin.len();
        let length = page[start..].find(end).expect("the block ends");
        page.replace_range(start..start + length, &text);
    }
    if std::env::var_os("WATTLE_WRITE_PAGES").is_some() {
        std::fs::write(&path, &page).expect("the documentation can be written");
    } else {
        let command = "WATTLE_WRITE_PAGES=1 cargo test -p wattle-train --test architecture_page";
        assert!(page == committed, "docs/how/architecture.md is stale; write it again with {command}");
    }
}
