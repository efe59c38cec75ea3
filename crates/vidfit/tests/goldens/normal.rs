//! What is replaced in what the program says and writes, because no two runs agree on it.
//!
//! - the folder of the test, by `{here}`;
//! - names of runs and jobs, by `{run}` and `{video}`;
//! - what a clock or the system's memory says: see [`is_measured`];
//! - what runs take on the disk, and the seal of a plan with LoRAs, which is over their places;
//! - the last digits of fractions, on which two systems' mathematics may differ;
//! - of what holds a peak of memory, all but the first three, which would fill these files;
//! - more than two spaces in a row, as columns are as wide as what stands in them, which may be a path.

use crate::sandbox::Sandbox;
use serde_json::{Map, Value, json};

/// So many of what holds a peak are kept.
const HOLDERS: usize = 3;

/// Stands for what was measured.
const MEASURED: &str = "(measured)";

/// Whether the field is measured in an event, a report or a job: what plans predict under such names
/// is the same everywhere, and stays.
fn is_measured(object: &Map<String, Value>, field: &str) -> bool {
    let kind = object.get("kind").and_then(Value::as_str);
    match field {
        "began_unix_ms" | "pid" | "load_seconds" | "seconds_left" | "wall_seconds" => true,
        "created" | "created_at" | "started_at" | "completed_at" | "time_unix_ms" | "unix_ms" => {
            true
        }
        "used_bytes" | "total_bytes" | "available_bytes" => kind == Some("RAM"),
        "seconds" => {
            let event = object.get("event").and_then(Value::as_str);
            matches!(event, Some("phase_ended" | "done"))
                || object.contains_key("measured_peak_bytes")
        }
        "measured_seconds" => true,
        // What a run takes on the disk: its log has times and numbers of processes in it.
        "bytes" => object.contains_key("folder") && object.contains_key("id"),
        // A plan is sealed with the places of its LoRAs.
        "seal" => object.get("loras").is_some_and(|loras| loras != ""),
        _ => false,
    }
}

/// A value without what differs from run to run.
pub fn value(sandbox: &Sandbox, value: &Value) -> Value {
    match value {
        Value::String(words) => Value::String(text(sandbox, words)),
        Value::Array(values) => values.iter().map(|it| self::value(sandbox, it)).collect(),
        Value::Object(object) => {
            let field = |(name, it): (&String, &Value)| {
                let it = match (name.as_str(), it) {
                    ("holders", Value::Array(all)) => &json!(&all[..all.len().min(HOLDERS)]),
                    _ => it,
                };
                let it = match is_measured(object, name) && !it.is_null() {
                    true => json!(MEASURED),
                    false => self::value(sandbox, it),
                };
                (text(sandbox, name), it)
            };
            Value::Object(object.iter().map(field).collect())
        }
        Value::Number(number) => match number.as_f64() {
            Some(fraction) if number.is_f64() => json!(rounded(fraction)),
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

/// A fraction to nine digits.
fn rounded(fraction: f64) -> f64 {
    format!("{fraction:.8e}").parse().unwrap()
}

/// A text without what differs from run to run.
pub fn text(sandbox: &Sandbox, text: &str) -> String {
    let text = sandbox.hide(text);
    let text = replaced(&text, RUN, "{run}");
    replaced(&text, VIDEO, "{video}")
}

/// Lines of a text, with durations replaced too if they are measured, and columns drawn together.
pub fn lines(sandbox: &Sandbox, timed: bool, said: &str) -> Vec<String> {
    let one = |line: &str| {
        let line = without_disk(drawn_together(text(sandbox, line).trim_end()));
        if timed { without_times(&line) } else { line }
    };
    said.trim_end().lines().map(one).collect()
}

fn drawn_together(line: &str) -> String {
    let mut line = line.to_owned();
    while line.contains("   ") {
        line = line.replace("   ", "  ");
    }
    line
}

/// The name of a run: a date, a time, and three letters or digits.
const RUN: &str = "00000000-000000-aaa";
/// The name of a job.
const VIDEO: &str = "video_ffffffffffffffffffffffffffffffff";

/// Replaces what looks like `pattern`, in which 0 is a digit, `a` a letter or digit, and `f` a
/// hexadecimal digit behind the first `_`.
fn replaced(text: &str, pattern: &str, by: &str) -> String {
    let prefix = pattern.find('_').map_or(0, |at| at + 1);
    let matches = |text: &[u8]| {
        text.len() >= pattern.len()
            && pattern.bytes().zip(text).enumerate().all(|(index, (wanted, found))| match wanted {
                b'0' => found.is_ascii_digit(),
                b'a' => found.is_ascii_alphanumeric(),
                b'f' if index >= prefix => found.is_ascii_hexdigit(),
                exact => *found == exact,
            })
    };
    let mut result = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if matches(rest.as_bytes()) {
            result += by;
            rest = &rest[pattern.len()..];
        } else {
            result.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    result
}

/// Replaces what runs take on the disk.
fn without_disk(line: String) -> String {
    let of_disk = ["on the disk", "took away run", "would drop frames", "would free"];
    if !of_disk.iter().any(|words| line.starts_with(words)) {
        return line;
    }
    let is_part = |c: char| !c.is_ascii_digit() && c != '.';
    match line.find(" KB").and_then(|end| Some((line[..end].rfind(is_part)? + 1, end + 3))) {
        Some((start, end)) => format!("{}{MEASURED}{}", &line[..start], &line[end..]),
        None => line,
    }
}

/// Replaces durations, such as `0.3 s` or `12 ms`, and RAM that is used.
fn without_times(line: &str) -> String {
    if line.starts_with("RAM Status:") {
        return format!("RAM Status: {MEASURED}");
    }
    let words: Vec<&str> = line.split(' ').collect();
    let is_unit = |word: &str| {
        let word = word.trim_end_matches([',', ')', '.', ';']);
        ["s", "ms", "µs", "min", "h"].contains(&word)
    };
    let mut kept: Vec<&str> = Vec::new();
    for word in words {
        let is_number = |word: &&&str| word.trim_start_matches('(').parse::<f64>().is_ok();
        if is_unit(word) && kept.last().as_ref().is_some_and(is_number) {
            *kept.last_mut().unwrap() = MEASURED;
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

#[test]
fn names_and_times_are_replaced() {
    assert_eq!(replaced("run 20261123-181530-k3f.", RUN, "{run}"), "run {run}.");
    assert_eq!(replaced("Ä 2026-x", RUN, "{run}"), "Ä 2026-x");
    let id = format!("/{}/x", VIDEO.replace('f', "0"));
    assert_eq!(replaced(&id, VIDEO, "{video}"), "/{video}/x");
    assert_eq!(without_times("wrote a.gif in 0.31 s"), "wrote a.gif in (measured)");
    assert_eq!(without_times("17 frames s"), "17 frames s");
    let line = "took away run {run} (167.7 KB)".to_owned();
    assert_eq!(without_disk(line), "took away run {run} ((measured))");
}
