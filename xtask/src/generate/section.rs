//! A part of a chapter that is made, between two lines that a browser does not show:
//!
//! ```text
//! <!-- generated: NAME -->
//! <!-- end of generated: NAME -->
//! ```

/// The text with what stands between the markers of `name` replaced.
///
/// # Errors
/// In words, when the markers are not there, once each and in this order.
pub(crate) fn replace(text: &str, name: &str, with: &str) -> Result<String, String> {
    let [start, end] = ["", "end of "].map(|of| format!("<!-- {of}generated: {name} -->\n"));
    let once = |marker: &str| {
        let mut places = text.match_indices(marker).map(|(at, _)| at);
        places.next().filter(|_| places.next().is_none())
    };
    match (once(&start), once(&end)) {
        (Some(from), Some(to)) if from < to => {
            let (head, tail) = (&text[..from + start.len()], &text[to..]);
            Ok(format!("{head}\n{}\n\n{tail}", with.trim()))
        }
        _ => Err(format!("must have the lines `{}` and `{}`, once each", start.trim(), end.trim())),
    }
}
