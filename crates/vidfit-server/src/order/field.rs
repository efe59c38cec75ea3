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
///
/// JSON spells a number in many ways (2, 2.0, 2e0), and all are taken, in texts as well: forms have
/// nothing else.
pub(super) fn number<T: Number>(name: &str, value: Value, least: T, most: T) -> Result<T, Refusal> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text,
        other => {
            let what = kind(&other);
            return Err(bad(name, format!("a number is wanted, not {what}")));
        }
    };
    let plain = !text.contains(|c: char| c.is_ascii_whitespace());
    let json = text.parse::<serde_json::Number>().ok().filter(|_| plain);
    let number = json.and_then(|number| T::read(&text).or_else(|| T::of(number.as_f64()?)));
    match number {
        Some(number) if number >= least && number <= most => Ok(number),
        _ => {
            let (word, text) = (T::WORD, shortened(&text));
            Err(bad(name, format!("{word} from {least} to {most} is wanted, not \"{text}\"")))
        }
    }
}

/// Numbers that fields have.
pub(super) trait Number: PartialOrd + std::fmt::Display + FromStr + Copy {
    /// What such a number is called.
    const WORD: &'static str = "a whole number";

    /// Reads one in its plain spelling.
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    /// The same number, if it is one of these.
    fn of(number: f64) -> Option<Self> {
        // Beyond 2^53, not every whole number is a float.
        let exact = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
        exact.then(|| format!("{number:.0}").parse().ok())?
    }
}

impl Number for u32 {}
impl Number for u64 {}
impl Number for i32 {}
impl Number for f64 {
    const WORD: &'static str = "a number";
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
