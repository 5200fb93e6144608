//! Foreign text made harmless: names of layers and files come from model files that anyone may have written.

/// Text for HTML and SVG, in content and in quoted attributes alike.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            c if is_hidden(c) => escaped.push(char::REPLACEMENT_CHARACTER),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Text for one line of a terminal: control characters, which could move the cursor or hide text, show as `�`.
pub fn visible(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Text of several lines for a terminal, as [`visible`].
pub fn visible_lines(text: &str) -> String {
    let harmless = |c| matches!(c, '\n' | '\t') || !is_hidden(c);
    text.chars().map(|c| if harmless(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Controls, and the bidirectional overrides that make text read other than it is.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_quotes_and_controls_are_disarmed() {
        assert_eq!(
            escape("<a b='c' d=\"e\">&\u{0}\u{202e}"),
            "&lt;a b=&#39;c&#39; d=&quot;e&quot;&gt;&amp;��"
        );
        assert_eq!(visible("a\u{1b}[2Jb\nc"), "a�[2Jb�c");
        assert_eq!(visible_lines("a\u{1b}[2Jb\r\n\tc\u{9b}"), "a�[2Jb�\n\tc�");
        assert_eq!(visible("µ² % 面"), "µ² % 面");
    }
}
