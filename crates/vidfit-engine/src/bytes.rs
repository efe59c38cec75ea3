//! Sizes as people write them: `8GB`, `7.5GiB`, `512MB`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, as it is written on the command line and in the settings.
///
/// Units are powers of 1024 whatever their spelling, as card vendors and drivers count: a card of
/// `8GB` has 8 · 2³⁰ bytes. A plain number is bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(
    /// The bytes.
    pub u64,
);

/// A text that is no [`ByteSize`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ByteSizeError {
    /// It has another form.
    #[error(
        "{0:?} is not a size. Write a number and its unit, such as 8GB, 7.5GB or 512MB (KB, MB, \
         GB or TB, powers of 1024), or plain bytes, such as 8589934592"
    )]
    Form(String),
    /// It has the form, but no machine counts so far.
    #[error("{0:?} is more bytes than can be counted. Write a size such as 8GB, 7.5GB or 512MB")]
    TooLarge(String),
}

/// Bytes as people read them: `9.04 GB`, `11.3 MB`; powers of 1024, as card vendors count.
pub fn in_words(bytes: u64) -> String {
    let megabytes = bytes as f64 / f64::from(1 << 20);
    match megabytes {
        ..1.0 => format!("{:.1} KB", megabytes * 1024.0),
        ..1024.0 => format!("{megabytes:.1} MB"),
        _ => format!("{:.2} GB", megabytes / 1024.0),
    }
}

/// Two numbers of bytes as people read them; exactly, where they would read the same.
pub fn both_in_words(one: u64, other: u64) -> (String, String) {
    let words = (in_words(one), in_words(other));
    if one == other || words.0 != words.1 {
        return words;
    }
    (format!("{one} bytes"), format!("{other} bytes"))
}

/// The units, largest first, with the bytes of each.
const UNITS: [(&str, u64); 4] =
    [("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)];

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    /// Reads a size. A fraction of a byte is cut off.
    fn from_str(text: &str) -> Result<ByteSize, ByteSizeError> {
        let form = || ByteSizeError::Form(text.to_owned());
        let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits_end);
        let unit_bytes = match unit {
            "" => None,
            unit => Some(bytes_of_unit(unit).ok_or_else(form)?),
        };
        let (whole, fraction) = match number.split_once('.') {
            None => (number, ""),
            // A fraction of a byte is no size, and `8.` is a slip of the finger.
            Some((_, "")) => return Err(form()),
            Some(_) if unit_bytes.is_none() => return Err(form()),
            Some(parts) => parts,
        };
        if whole.is_empty() || fraction.contains('.') {
            return Err(form());
        }
        let unit_bytes = unit_bytes.unwrap_or(1);
        let whole: Option<u64> = whole.parse().ok();
        let bytes = whole.and_then(|whole| whole.checked_mul(unit_bytes));
        let bytes = bytes.and_then(|bytes| bytes.checked_add(part(fraction, unit_bytes)));
        bytes.map(ByteSize).ok_or_else(|| ByteSizeError::TooLarge(text.to_owned()))
    }
}

/// The bytes of `GB`, `gib` and the like.
fn bytes_of_unit(unit: &str) -> Option<u64> {
    let is = |name: &str| {
        let binary = name.replace('B', "iB");
        unit.eq_ignore_ascii_case(name) || unit.eq_ignore_ascii_case(&binary)
    };
    UNITS.into_iter().find(|(name, _)| is(name)).map(|(_, bytes)| bytes)
}

/// The bytes of the digits after a point. What stands behind the eighteenth is less than a byte.
fn part(fraction: &str, unit_bytes: u64) -> u64 {
    let digits = &fraction[..fraction.len().min(18)];
    let numerator: u128 = digits.parse().unwrap_or(0);
    let bytes = numerator * u128::from(unit_bytes) / 10u128.pow(digits.len() as u32);
    // Less than the unit, which is a u64.
    bytes as u64
}

/// The shortest text that reads as the same size: in a unit if two decimals say it exactly, in
/// bytes otherwise.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact =
            UNITS.into_iter().filter(|&(_, bytes)| self.0 >= bytes).find_map(|(name, bytes)| {
                let hundredths = u128::from(self.0) * 100;
                let exact = hundredths.is_multiple_of(u128::from(bytes));
                exact.then(|| (hundredths / u128::from(bytes), name))
            });
        match exact {
            None => write!(f, "{}", self.0),
            Some((hundredths, unit)) => {
                let number = format!("{}.{:02}", hundredths / 100, hundredths % 100);
                write!(f, "{}{unit}", number.trim_end_matches('0').trim_end_matches('.'))
            }
        }
    }
}

impl<'de> serde::Deserialize<'de> for ByteSize {
    /// Reads a text such as `"2GB"`, or a number of bytes.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"8GB\", \"7.5GB\" or \"512MB\", or a number of bytes")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                let unexpected = serde::de::Unexpected::Signed(bytes);
                u64::try_from(bytes).map(ByteSize).map_err(|_| E::invalid_value(unexpected, &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(text: &str) -> Result<u64, ByteSizeError> {
        text.parse().map(|size: ByteSize| size.0)
    }

    #[test]
    fn units_are_powers_of_1024_in_any_spelling() {
        for (text, expected) in [
            ("8GB", 8 << 30),
            ("8gib", 8 << 30),
            ("8GiB", 8 << 30),
            ("8Gb", 8 << 30),
            ("7.5GB", 15 << 29),
            ("512MB", 512 << 20),
            ("1.5mib", 3 << 19),
            ("4KB", 4096),
            ("0.5kib", 512),
            ("2TB", 2 << 40),
            ("1TiB", 1 << 40),
            ("0", 0),
            ("8589934592", 8 << 30),
            ("18446744073709551615", u64::MAX),
            ("0.1GB", 107_374_182),
            ("15.999999999999999999999999GB", (16 << 30) - 1),
            ("007MB", 7 << 20),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_an_error_that_shows_the_form() {
        for text in [
            "", "GB", "8G", "24g", "8 GB", " 8GB", "8GB ", "8B", "8bytes", "-1GB", "-1", "+8GB",
            "8,5GB", "8.5", "8.", "8.GB", ".5GB", ".", "1.2.3GB", "1e9", "0x10", "eight", "8GBB",
            "8IGB", "8GIIB", "8GBI", "8PB", "٨GB", "8ＧＢ", "inf", "NaN", "8İGB",
        ] {
            let error = bytes(text).expect_err(text);
            assert_eq!(error, ByteSizeError::Form(text.into()));
            assert!(error.to_string().contains("8GB, 7.5GB or 512MB"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_counted_is_refused() {
        for text in
            ["18446744073709551616", "16777216TB", "99999999999999999999999GB", "20000000000GB"]
        {
            let error = bytes(text).expect_err(text);
            assert_eq!(error, ByteSizeError::TooLarge(text.into()));
            assert!(error.to_string().contains("8GB"), "{error}");
        }
        assert_eq!(bytes("16777215.5TB"), Ok(u64::MAX - (1 << 39) + 1));
    }

    #[test]
    fn sizes_are_shown_as_people_write_them() {
        for (number, text) in [
            (8 << 30, "8GB"),
            (15 << 29, "7.5GB"),
            (512 << 20, "512MB"),
            ((1 << 30) + (1 << 28), "1.25GB"),
            ((1 << 30) + (1 << 27), "1152MB"),
            (3 << 40, "3TB"),
            (100 << 30, "100GB"),
            (1023, "1023"),
            (1025, "1025"),
            (0, "0"),
        ] {
            assert_eq!(ByteSize(number).to_string(), text);
        }
    }

    #[test]
    fn a_size_is_read_from_a_text_or_a_number() {
        let read = serde_json::from_str::<ByteSize>;
        assert_eq!(read("\"2GB\"").unwrap(), ByteSize(2 << 30));
        assert_eq!(read("4096").unwrap(), ByteSize(4096));
        for wrong in ["-1", "\"2G\"", "2.5", "null", "true"] {
            let error = read(wrong).expect_err(wrong).to_string();
            assert!(error.contains("8GB"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_as_the_same(bytes: u64, unit in 0..41u32) {
            let size = ByteSize(bytes >> unit << unit);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
