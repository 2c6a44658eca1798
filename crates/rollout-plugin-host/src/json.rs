//! JSON at the boundaries: bounded nesting, results kept byte for byte, TOML tables as JSON.

use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

/// The deepest nesting that crosses a boundary, either way. `RawValue` has no bound of its own, and
/// the parsers behind it have this one or less.
pub(crate) const MAX_DEPTH: usize = 100;

/// Why bytes are not accepted as JSON.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("not JSON: {0}")]
    Syntax(String),
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// The bytes as one JSON value, kept as they are, without the white space around it.
pub(crate) fn raw(bytes: &[u8]) -> Result<Box<RawValue>, Refused> {
    check_depth(bytes)?;
    serde_json::from_slice(bytes).map_err(|error| Refused::Syntax(error.to_string()))
}

/// Refuses what is nested too deep, without recursion. Says nothing else of the bytes.
pub(crate) fn check_depth(bytes: &[u8]) -> Result<(), Refused> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Refused::TooDeep);
        }
    }
    Ok(())
}

/// A TOML table as a JSON object; dates become text.
///
/// # Errors
/// The key whose value has no JSON form: a float that is no number.
pub(crate) fn from_toml(table: toml::Table) -> Result<Map<String, Value>, String> {
    table
        .into_iter()
        .map(|(key, value)| {
            let value = value_from_toml(value).map_err(|inner| format!("{key}{inner}"))?;
            Ok((key, value))
        })
        .collect()
}

fn value_from_toml(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::Number(
            Number::from_f64(number).ok_or_else(|| format!(": {number} has no JSON form"))?,
        ),
        toml::Value::Boolean(yes) => Value::Bool(yes),
        toml::Value::Datetime(date) => Value::String(date.to_string()),
        toml::Value::Array(items) => {
            items.into_iter().map(value_from_toml).collect::<Result<_, _>>()?
        }
        toml::Value::Table(table) => {
            Value::Object(from_toml(table).map_err(|inner| format!(".{inner}"))?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_bounded_and_brackets_in_strings_do_not_count() {
        let nested = |levels| [vec![b'['; levels], vec![b']'; levels]].concat();
        assert!(raw(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(raw(&nested(MAX_DEPTH + 1)).unwrap_err(), Refused::TooDeep);
        assert_eq!(check_depth(&vec![b'['; 10_000_000]), Err(Refused::TooDeep));
        let text = serde_json::to_vec(&"[\"{\\".repeat(MAX_DEPTH)).unwrap();
        assert!(raw(&text).is_ok());
        assert!(raw(b"[[]]".repeat(MAX_DEPTH).as_slice()).is_err(), "more than one value");
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for bad in [&b""[..], b"nope", b"NaN", b"{\"a\":}", b"\"\xff\"", b"1 2"] {
            assert!(matches!(raw(bad), Err(Refused::Syntax(_))), "{bad:?}");
        }
        assert_eq!(raw(b" {\"a\":  1.0}\n").unwrap().get(), "{\"a\":  1.0}");
    }

    #[test]
    fn a_toml_table_becomes_json_and_a_float_that_is_no_number_names_its_key() {
        let table = |text: &str| from_toml(toml::from_str(text).unwrap());
        let json = table("a = [1, 2.5]\nb.c = 2026-01-02\nd = true").unwrap();
        assert_eq!(
            Value::Object(json).to_string(),
            r#"{"a":[1,2.5],"b":{"c":"2026-01-02"},"d":true}"#
        );
        assert_eq!(table("a.b.c = nan").unwrap_err(), "a.b.c: NaN has no JSON form");
    }
}
