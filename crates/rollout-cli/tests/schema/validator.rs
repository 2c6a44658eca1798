//! A validator for the part of JSON Schema, draft 7, that our schemas and the schema of schemas use. It
//! does not pass over a keyword that it does not know: that is a violation, too.
//!
//! Validators that know it all are forty crates and more to build, for this alone.

use regex_lite::Regex;
use serde_json::{Map, Value};

/// What of `value` is not as the schema asks, one sentence each.
pub(crate) fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Judge { root: schema }.judge(schema, value, "$", &mut found);
    found
}

/// What says nothing of a value.
const NOTES: [&str; 8] =
    ["$schema", "$id", "$comment", "title", "description", "default", "examples", "format"];

struct Judge<'a> {
    root: &'a Value,
}

impl Judge<'_> {
    fn holds(&self, schema: &Value, value: &Value) -> bool {
        let mut found = Vec::new();
        self.judge(schema, value, "", &mut found);
        found.is_empty()
    }

    fn judge(&self, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        let keywords = match schema {
            Value::Bool(true) => return,
            Value::Bool(false) => return found.push(format!("{at}: may not be there")),
            Value::Object(keywords) => keywords,
            other => return found.push(format!("{at}: {other} is no schema")),
        };
        // In draft 7 nothing counts beside a reference.
        if let Some(target) = keywords.get("$ref").and_then(Value::as_str) {
            let pointer = target.strip_prefix('#');
            return match pointer.and_then(|pointer| self.root.pointer(pointer)) {
                Some(schema) => self.judge(schema, value, at, found),
                None => found.push(format!("{at}: the reference {target} leads nowhere")),
            };
        }
        for (keyword, want) in keywords {
            let ok = match keyword.as_str() {
                _ if NOTES.contains(&&**keyword) => true,
                "definitions" | "then" | "else" => true,
                "allOf" | "anyOf" | "oneOf" | "not" | "if" => {
                    self.combined(keyword, keywords, value, at, found)
                }
                "properties" | "additionalProperties" | "required" | "propertyNames" => {
                    self.object(keyword, keywords, value, at, found);
                    true
                }
                "items" => {
                    self.items(want, value, at, found);
                    true
                }
                _ => simple(keyword, want, value).unwrap_or(false),
            };
            if !ok {
                found.push(format!("{at}: {value} is not as `{keyword}` asks: {want}"));
            }
        }
    }

    fn combined(
        &self,
        keyword: &str,
        keywords: &Map<String, Value>,
        value: &Value,
        at: &str,
        found: &mut Vec<String>,
    ) -> bool {
        let want = &keywords[keyword];
        let each = || want.as_array().into_iter().flatten();
        let count = || each().filter(|schema| self.holds(schema, value)).count();
        match keyword {
            "allOf" => each().for_each(|schema| self.judge(schema, value, at, found)),
            "anyOf" => return count() > 0,
            "oneOf" => return count() == 1,
            "not" => return !self.holds(want, value),
            _ => {
                let branch = if self.holds(want, value) { "then" } else { "else" };
                let schema = keywords.get(branch).unwrap_or(&Value::Bool(true));
                self.judge(schema, value, at, found);
            }
        }
        true
    }

    fn object(
        &self,
        keyword: &str,
        keywords: &Map<String, Value>,
        value: &Value,
        at: &str,
        found: &mut Vec<String>,
    ) {
        let Some(object) = value.as_object() else { return };
        let want = &keywords[keyword];
        let known = keywords.get("properties").and_then(Value::as_object);
        let is_known = |key: &str| known.is_some_and(|known| known.contains_key(key));
        match keyword {
            "required" => {
                let keys = want.as_array().into_iter().flatten().filter_map(Value::as_str);
                let missing = keys.filter(|key| !object.contains_key(*key));
                found.extend(missing.map(|key| format!("{at}: `{key}` is missing")));
            }
            "propertyNames" => {
                for key in object.keys() {
                    self.judge(want, &Value::from(&**key), at, found);
                }
            }
            "additionalProperties" => {
                for (key, value) in object.iter().filter(|(key, _)| !is_known(key)) {
                    self.judge(want, value, &format!("{at}.{key}"), found);
                }
            }
            _ => {
                for (key, value) in object.iter().filter(|(key, _)| is_known(key)) {
                    self.judge(&want[key], value, &format!("{at}.{key}"), found);
                }
            }
        }
    }

    fn items(&self, want: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        for (place, item) in value.as_array().into_iter().flatten().enumerate() {
            let schema = want.as_array().map_or(Some(want), |each| each.get(place));
            let schema = schema.unwrap_or(&Value::Bool(true));
            self.judge(schema, item, &format!("{at}[{place}]"), found);
        }
    }
}

/// Whether the value is as a keyword asks that says all by itself; nothing, if it is not known.
fn simple(keyword: &str, want: &Value, value: &Value) -> Option<bool> {
    // Each of these says something of values of one type alone, and nothing of others.
    let number = |holds: fn(f64, f64) -> bool| {
        let bound = want.as_f64()?;
        Some(value.as_f64().is_none_or(|value| holds(value, bound)))
    };
    let length = |length: Option<usize>, holds: fn(usize, usize) -> bool| {
        let bound = usize::try_from(want.as_u64()?).ok()?;
        Some(length.is_none_or(|length| holds(length, bound)))
    };
    let items = value.as_array();
    match keyword {
        "type" => Some(match want {
            Value::Array(types) => types.iter().any(|it| is_of_type(value, it)),
            one => is_of_type(value, one),
        }),
        "const" => Some(value == want),
        "enum" => Some(want.as_array()?.contains(value)),
        "minimum" => number(|value, bound| value >= bound),
        "maximum" => number(|value, bound| value <= bound),
        "exclusiveMinimum" => number(|value, bound| value > bound),
        "minLength" => {
            length(value.as_str().map(|text| text.chars().count()), |n, least| n >= least)
        }
        "maxLength" => length(value.as_str().map(|text| text.chars().count()), |n, most| n <= most),
        "minItems" => length(items.map(Vec::len), |n, least| n >= least),
        "maxItems" => length(items.map(Vec::len), |n, most| n <= most),
        "uniqueItems" => Some(items.is_none_or(|items| {
            items.iter().enumerate().all(|(place, item)| !items[..place].contains(item))
        })),
        "pattern" => {
            let pattern = Regex::new(want.as_str()?).ok()?;
            Some(value.as_str().is_none_or(|text| pattern.is_match(text)))
        }
        _ => None,
    }
}

fn is_of_type(value: &Value, name: &Value) -> bool {
    match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some("number") => value.is_number(),
        Some("integer") => {
            value.is_u64() || value.is_i64() || value.as_f64().is_some_and(|it| it.fract() == 0.0)
        }
        _ => false,
    }
}
