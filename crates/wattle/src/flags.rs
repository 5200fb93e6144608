//! Options as they are typed here: libraries call an option by its name, the command line by its flag.
//!
//! A library that speaks of an option writes ``option `batch` ``, and with a value that would help ``option `validation=10%` ``:
//! its callers may be programs. In front of a terminal these are `--batch` and `--validation 10%`.

/// The text with every option as it is typed.
pub fn typed(text: &str) -> String {
    const MARK: &str = "option `";
    let mut typed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(MARK) {
        typed += before;
        let name = after.split_once('`').filter(|(name, _)| is_option(name));
        rest = match name {
            Some((name, after)) => {
                typed += "`--";
                typed += &name.replacen('=', " ", 1);
                typed += "`";
                after
            }
            None => {
                typed += MARK;
                after
            }
        };
    }
    typed + rest
}

/// Whether the text in quotes is `name` or `name=value`.
fn is_option(text: &str) -> bool {
    let name = text.split('=').next().unwrap_or_default();
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn options_become_flags_and_other_words_stay() {
        assert_eq!(
            typed("option `batch`: too large; keep some: option `validation=10%`, or option `input=x=1x3`"),
            "`--batch`: too large; keep some: `--validation 10%`, or `--input x=1x3`"
        );
        for text in ["no option", "option `", "option `Not one` is there", "an option ``"] {
            assert_eq!(typed(text), text);
        }
    }

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                found.push(path);
            }
        }
    }

    /// What libraries can say: their sources without comments and tests.
    fn library_code() -> Vec<(PathBuf, String)> {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut files = vec![];
        for entry in fs::read_dir(crates).unwrap() {
            let path = entry.unwrap().path();
            if path.join("src/lib.rs").exists() {
                sources(&path.join("src"), &mut files);
            }
        }
        assert!(files.len() > 200, "{} files", files.len());
        let code = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\n").take_while(|part| !part.contains("mod tests {"));
            let text = text.collect::<String>();
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let lines: Vec<&str> = lines.collect();
            (path, lines.join("\n"))
        };
        files.into_iter().map(code).collect()
    }

    #[test]
    fn libraries_name_no_flags() {
        let mut named = vec![];
        for (path, code) in library_code() {
            for (at, _) in code.match_indices("--") {
                let (before, after) = (&code[..at], &code[at + 2..]);
                // Not `a--b`, and not a variable of CSS.
                let starts = before.ends_with(['"', '`', ' ', '(']) && !before.ends_with("var(");
                if starts && after.starts_with(|c: char| c.is_ascii_lowercase()) {
                    let word: String =
                        after.chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect();
                    named.push(format!("{}: --{word}", path.display()));
                }
            }
        }
        assert!(
            named.is_empty(),
            "a library speaks of options by name, ``option `x` ``:\n{}",
            named.join("\n")
        );
    }

    /// Every long flag of the command line.
    #[cfg(feature = "networks")]
    fn flags(command: &clap::Command, found: &mut Vec<String>) {
        found.extend(command.get_arguments().filter_map(|a| a.get_long()).map(str::to_owned));
        command.get_subcommands().for_each(|c| flags(c, found));
    }

    #[cfg(feature = "networks")]
    #[test]
    fn every_option_that_a_library_names_can_be_typed() {
        let mut known = vec![];
        flags(&<crate::Cli as clap::CommandFactory>::command(), &mut known);
        let mut named = 0;
        for (path, code) in library_code() {
            for (_, after) in code.match_indices("option `").map(|(at, mark)| (at, &code[at + mark.len()..]))
            {
                let Some((text, _)) = after.split_once('`').filter(|(text, _)| is_option(text)) else {
                    continue;
                };
                let name = text.split('=').next().unwrap();
                assert!(known.iter().any(|flag| flag == name), "{}: option `{text}`", path.display());
                named += 1;
            }
        }
        assert!(named > 10, "{named}");
    }
}
