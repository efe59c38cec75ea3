//! One value of an order, which may come as JSON or as the text of a form.

use crate::backend::Refusal;
use serde_json::Value;
use std::str::FromStr;

/// A field that is not as it should be.
pub(super) fn bad(name: &str, message: impl std::fmt::Display) -> Refusal {
    Refusal::new("invalid_value", format!("{name}: {message}")).about(name)
}

/// A text.
pub(super) fn text(name: &str, value: Value) -> Result<String, Refusal> {
    match value {
        Value::String(text) if text.contains('\0') => {
            Err(bad(name, "a text without null characters is wanted"))
        }
        Value::String(text) => Ok(text),
        other => Err(bad(name, format!("a text is wanted, not {}", kind(&other)))),
    }
}

/// A number, or the text of one, from `least` to `most`.
pub(super) fn number<T>(name: &str, value: Value, least: T, most: T) -> Result<T, Refusal>
where
    T: FromStr + PartialOrd + std::fmt::Display + Whole,
{
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text,
        other => {
            let what = kind(&other);
            return Err(bad(name, format!("a number is wanted, not {what}")));
        }
    };
    let between = || format!("{} from {least} to {most} is wanted", T::WORD);
    match T::read(&text) {
        Some(number) if number >= least && number <= most => Ok(number),
        _ => Err(bad(name, format!("{}, not \"{}\"", between(), shortened(&text)))),
    }
}

/// Numbers that can be read from text in JSON's spelling.
pub(super) trait Whole: Sized + FromStr {
    /// What such a number is called.
    const WORD: &'static str = "a whole number";

    /// Reads one.
    fn read(text: &str) -> Option<Self> {
        match text.parse() {
            Ok(number) if !text.starts_with('+') => Some(number),
            // JSON spells the same number in more than one way: 2.0 is 2.
            _ => {
                let float = f64::read(text)?;
                (float.fract() == 0.0 && float.abs() < 9e15)
                    .then(|| format!("{float:.0}").parse().ok())?
            }
        }
    }
}

impl Whole for u32 {}
impl Whole for u64 {}
impl Whole for i32 {}
impl Whole for f64 {
    const WORD: &'static str = "a number";

    fn read(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E'));
        let number: f64 = text.parse().ok().filter(|_| plain)?;
        number.is_finite().then_some(number)
    }
}

/// What a value is, for people.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The beginning of a text that a client sent, for an answer.
pub(super) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
    if text.chars().nth(40).is_some() {
        short.push('…');
    }
    short
}
