//! What was found, held to what is written in `expected/`; or written there.

use crate::sandbox::here;
use serde_json::{Map, Value};
use std::fmt::Write;
use std::fs;

/// Names the variable that has the goldens written anew: `VIDFIT_GOLDENS=write`.
const VARIABLE: &str = "VIDFIT_GOLDENS";

/// Values that are written in one line are no longer, in characters.
const WIDEST: usize = 100;

/// Differences that are shown of one case.
const MOST_SHOWN: usize = 12;

/// Whether goldens are to be written, not held to.
pub fn is_writing() -> bool {
    std::env::var(VARIABLE).is_ok_and(|value| value == "write")
}

/// Holds the cases of `expected/NAME.json` to what was found. Each is an object with its `case`.
///
/// Panics with every difference, or writes what was found.
pub fn compare(name: &str, found: &[Value]) {
    let path = here().join("expected").join(format!("{name}.json"));
    if is_writing() {
        let mut text = String::new();
        write_value(&mut text, &Value::Array(found.to_vec()), 0);
        text.push('\n');
        fs::write(&path, text).unwrap();
        return;
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}.json: {error}"));
    let expected: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut report = String::new();
    let cases = |all: &[Value]| -> Vec<Value> { all.iter().map(|it| it["case"].clone()).collect() };
    if cases(&expected) != cases(found) {
        report += "the cases are others than those that are written, or in another order\n";
    }
    for (expected, found) in expected.iter().zip(found) {
        if expected["case"] != found["case"] {
            continue;
        }
        let mut differences = Vec::new();
        differ(&mut differences, String::new(), Some(expected), Some(found));
        if differences.is_empty() {
            continue;
        }
        let _ = writeln!(report, "\n{}", expected["case"].as_str().unwrap_or_default());
        let more = differences.len().saturating_sub(MOST_SHOWN);
        differences.truncate(MOST_SHOWN);
        differences.iter().for_each(|difference| report += difference);
        if more > 0 {
            let _ = writeln!(report, "    and {more} more");
        }
    }
    assert!(
        report.is_empty(),
        "{name}: not what it was (- before, + now). If that is meant, run the test with \
         {VARIABLE}=write and look at the difference:\n{report}"
    );
}

/// Lists where two values differ, with both.
fn differ(into: &mut Vec<String>, at: String, expected: Option<&Value>, found: Option<&Value>) {
    match (expected, found) {
        (Some(Value::Object(expected)), Some(Value::Object(found))) => {
            let mut names: Vec<&String> = expected.keys().chain(found.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                differ(into, at, expected.get(name), found.get(name));
            }
        }
        (Some(Value::Array(expected)), Some(Value::Array(found))) => {
            for index in 0..expected.len().max(found.len()) {
                differ(into, format!("{at}[{index}]"), expected.get(index), found.get(index));
            }
        }
        _ if expected == found => {}
        _ => {
            let shown = |sign: char, value: Option<&Value>| {
                value.map_or(String::new(), |value| format!("    {sign} {value}\n"))
            };
            into.push(format!("  {at}\n{}{}", shown('-', expected), shown('+', found)));
        }
    }
}

/// Writes JSON for people: what is short in one line, all else in a line for each part.
fn write_value(into: &mut String, value: &Value, depth: usize) {
    let compact = compact(value);
    if depth > 0 && compact.chars().count() + 2 * depth <= WIDEST {
        *into += &compact;
        return;
    }
    let inner = "  ".repeat(depth + 1);
    let outer = "  ".repeat(depth);
    match value {
        Value::Array(values) if !values.is_empty() => {
            into.push('[');
            for (index, value) in values.iter().enumerate() {
                *into += if index == 0 { "\n" } else { ",\n" };
                *into += &inner;
                write_value(into, value, depth + 1);
            }
            let _ = write!(into, "\n{outer}]");
        }
        Value::Object(object) if !object.is_empty() => {
            into.push('{');
            for (index, (name, value)) in in_order(object).into_iter().enumerate() {
                *into += if index == 0 { "\n" } else { ",\n" };
                let _ = write!(into, "{inner}{}: ", Value::from(name.as_str()));
                write_value(into, value, depth + 1);
            }
            let _ = write!(into, "\n{outer}}}");
        }
        _ => *into += &compact,
    }
}

/// JSON in one line, with a space behind each comma and colon.
fn compact(value: &Value) -> String {
    match value {
        Value::Array(values) => {
            let parts: Vec<String> = values.iter().map(compact).collect();
            format!("[{}]", parts.join(", "))
        }
        Value::Object(object) => {
            let part = |(name, value): (&String, &Value)| {
                format!("{}: {}", Value::from(name.as_str()), compact(value))
            };
            let parts: Vec<String> = in_order(object).into_iter().map(part).collect();
            format!("{{{}}}", parts.join(", "))
        }
        other => other.to_string(),
    }
}

/// The fields of an object, the name of the case first.
fn in_order(object: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut fields: Vec<(&String, &Value)> = object.iter().collect();
    fields.sort_by_key(|(name, _)| (name.as_str() != "case", name.as_str()));
    fields
}

#[test]
fn differences_are_named_with_both_sides() {
    let value = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    let (expected, found) = (value(r#"{"a": {"b": [1, 2]}}"#), value(r#"{"a": {"b": [1, 3]}}"#));
    let mut differences = Vec::new();
    differ(&mut differences, String::new(), Some(&expected), Some(&found));
    assert_eq!(differences, ["  a.b[1]\n    - 2\n    + 3\n"]);
    let mut text = String::new();
    write_value(&mut text, &value(r#"[{"z": 1, "case": "x"}]"#), 0);
    assert_eq!(text, "[\n  {\"case\": \"x\", \"z\": 1}\n]");
}
