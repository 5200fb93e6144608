//! What the pages tell a reader to type is what the command line takes.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::error::ErrorKind;

use crate::Cli;

/// The pages at the top and below `docs`.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (mut found, mut waiting) = (vec![], vec![root.join("docs")]);
    found.extend(
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benches/peers/README.md"].map(|p| root.join(p)),
    );
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).expect("the pages are part of the repository").flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// A command on a page. What stands in a line of its own is whole; in a sentence it may lack what it acts on.
#[derive(Debug, PartialEq)]
struct Typed {
    text: String,
    whole: bool,
}

/// The commands of a page: lines of blocks, fenced or indented, and code within sentences.
fn commands(page: &str) -> Vec<Typed> {
    let mut found = vec![];
    let (mut fence, mut prose, mut begun) = (None, String::new(), String::new());
    for line in page.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(language.trim().to_owned()) };
            continue;
        }
        let is_code = match &fence {
            Some(language) => language == "sh" || language == "bash",
            None => line.starts_with("    "),
        };
        if !is_code {
            if fence.is_none() {
                prose += line;
                prose.push(' ');
            }
            continue;
        }
        match line.trim().strip_suffix('\\') {
            Some(part) => begun += part,
            None => {
                let text = std::mem::take(&mut begun) + line.trim();
                found.extend(command(&text).map(|text| Typed { text, whole: true }));
            }
        }
    }
    let spans = prose.split('`').skip(1).step_by(2);
    found.extend(spans.filter_map(command).map(|text| Typed { text, whole: false }));
    found
}

/// The text from `wattle` on, if that is what runs.
fn command(text: &str) -> Option<String> {
    let mut words = words(text).into_iter().skip_while(|word| word.contains('=') && !word.starts_with('-'));
    let first = words.next()?;
    let rest: Vec<String> = words.collect();
    let rest = match first.as_str() {
        "cargo" if rest.starts_with(&["run".into(), "--release".into(), "--".into()]) => rest[3..].to_vec(),
        program if program == "wattle" || program.ends_with("/wattle") => rest,
        _ => return None,
    };
    // `wattle` alone names the program, and dots stand for what the reader knows.
    let names_it = rest.is_empty() || rest.iter().any(|word| word == "..." || word == "…");
    (!names_it).then(|| rest.join("\u{1f}"))
}

/// Words as a shell splits them, without its expansions; a comment ends them.
fn words(text: &str) -> Vec<String> {
    let (mut found, mut word, mut quote, mut is_word) = (vec![], String::new(), None, false);
    for c in text.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => (quote, is_word) = (Some(c), true),
            (None, '#') if !is_word => break,
            (None, c) if c.is_whitespace() => {
                if is_word {
                    found.push(std::mem::take(&mut word));
                }
                is_word = false;
            }
            (_, c) => {
                word.push(c);
                is_word = true;
            }
        }
    }
    if is_word {
        found.push(word);
    }
    found
}

/// Why the command line does not take it.
fn refusal(typed: &Typed) -> Option<String> {
    let words: Vec<&str> = typed.text.split('\u{1f}').collect();
    let error = Cli::try_parse_from(["wattle"].iter().chain(&words)).err()?;
    let is_short = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => !typed.whole,
        // A sentence may speak of a flag (`wattle estimate --model`), or of any value (`wattle measure --epochs N`).
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let stands_for_any = |word: &&str| word.chars().all(|c| c.is_ascii_uppercase());
            !typed.whole
                && (words.last().is_some_and(|word| word.starts_with("--"))
                    || words.iter().any(stands_for_any))
        }
        _ => false,
    };
    let first = || error.to_string().lines().next().unwrap_or_default().to_owned();
    (!is_short).then(|| format!("wattle {}: {}", words.join(" "), first()))
}

#[test]
fn every_command_on_a_page_is_taken_by_the_command_line() {
    let (mut refused, mut count) = (vec![], 0);
    for path in pages() {
        let page = fs::read_to_string(&path).expect("a page is UTF-8 text");
        for typed in commands(&page) {
            count += 1;
            refused.extend(refusal(&typed).map(|why| format!("{}: {why}", path.display())));
        }
    }
    assert!(count > 100, "{count} commands found");
    assert!(refused.is_empty(), "commands that cannot be typed:\n{}", refused.join("\n"));
}

#[test]
fn commands_are_found_and_wrong_ones_are_refused() {
    let page = "As `wattle train` does.\n\n    X=1 wattle ledger sum --by 'a b'  # why\n\n```sh\nwattle measure \\\n  -- \
                sleep 1\nls\n```\n```text\nwattle is silent\n```\n`wattle train --no-such`, `wattle` alone";
    let found = commands(page);
    let texts: Vec<String> = found.iter().map(|typed| typed.text.replace('\u{1f}', "|")).collect();
    assert_eq!(texts, ["ledger|sum|--by|a b", "measure|--|sleep|1", "train", "train|--no-such"]);
    let refused: Vec<bool> = found.iter().map(|typed| refusal(typed).is_some()).collect();
    assert_eq!(refused, [false, false, false, true]);
    let whole = Typed { text: "train".into(), whole: true };
    assert!(refusal(&whole).is_some(), "a line of its own lacks the model");
}
