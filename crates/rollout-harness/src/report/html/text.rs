//! Text for the page: whatever a process wrote stays text.

use std::time::Duration;

use rollout_core::duration::as_ms;

/// The most characters of a detail.
pub(super) const DETAIL: usize = 400;

/// `text` as HTML: markup escaped; characters that are not to be seen, or that would turn the
/// direction of what follows, are replaced.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            '\n' | '\t' => escaped.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// At most `most` characters of `text`; that it was longer shows.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A duration as people say it: `812 ms`, `5.75 s`.
pub(super) fn time(duration: Duration) -> String {
    let ms = as_ms(duration);
    if ms < 1e3 {
        let places = if ms < 10.0 { 2 } else { 0 };
        return format!("{} ms", trim(&format!("{ms:.places$}")));
    }
    let places = if ms < 1e5 { 2 } else { 1 };
    format!("{} s", trim(&format!("{:.places$}", ms / 1e3)))
}

/// A number without the zeros at its end that say nothing.
pub(super) fn trim(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// `template` with each `{{name}}` replaced by its value, in one pass: what is put in is not read
/// again. A name without a value becomes nothing.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut pieces = template.split("{{");
    let mut page = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once("}}").unwrap_or(("", piece));
        let value = values.iter().find(|value| value.0 == name);
        page += value.map_or("", |value| value.1);
        page += rest;
    }
    page
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_that_is_escaped_can_open_a_tag_end_an_attribute_or_hide(text in any::<String>()) {
            let escaped = escape(&text);
            let bare = ['<', '>', '"', '\'', '\0', '\x1b', char::from_u32(0x202e).unwrap()];
            prop_assert!(!escaped.contains(bare));
            let entity = |rest: &str| {
                ["amp;", "lt;", "gt;", "quot;", "#39;"].iter().any(|name| rest.starts_with(name))
            };
            prop_assert!(escaped.split('&').skip(1).all(entity));
        }

        #[test]
        fn a_cut_text_is_its_beginning(text in "\\PC{0,40}", most in 0usize..40) {
            let cut = cut(&text, most);
            prop_assert!(cut.chars().count() <= most + 1);
            prop_assert!(text.starts_with(cut.trim_end_matches('…')) || text.contains('…'));
        }
    }

    #[test]
    fn durations_read_as_people_say_them() {
        let said = |micros| time(Duration::from_micros(micros));
        assert_eq!(said(421), "0.42 ms");
        assert_eq!(said(812_400), "812 ms");
        assert_eq!(said(5_750_000), "5.75 s");
        assert_eq!(said(10_000_000), "10 s");
        assert_eq!(said(123_456_789), "123.5 s");
    }

    #[test]
    fn a_value_that_looks_like_a_place_to_fill_is_left_alone() {
        let page = fill("<{{a}}|{{b}}|{{c}}>", &[("a", "{{b}}"), ("b", "x")]);
        assert_eq!(page, "<{{b}}|x|>");
    }
}
