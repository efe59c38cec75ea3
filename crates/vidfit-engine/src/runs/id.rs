//! Names of runs: short, sorted by time, and never the same twice.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// The name of a run: the second in UTC that it began, the thousandth of it in two characters, and one
/// that tells it from others of that moment, such as `20261123-181530-k3f`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(String);

/// Characters that nobody takes for one another.
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The form, where `d` is a digit and `x` one of the [`LETTERS`].
const FORM: &[u8] = b"dddddddd-dddddd-xxx";

impl RunId {
    /// A name for a run that begins so many milliseconds after 1970.
    pub fn new(unix_ms: u64) -> RunId {
        // Seeded anew by the system for every hasher.
        RunId::of(unix_ms, RandomState::new().hash_one(std::process::id()))
    }

    fn of(unix_ms: u64, draw: u64) -> RunId {
        let (unix_seconds, thousandth) = (unix_ms / 1000, unix_ms % 1000);
        let (year, month, day) = date(unix_seconds / 86_400);
        let second = unix_seconds % 86_400;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let letter = |number: u64| char::from(LETTERS[number as usize % 32]);
        let letters: String = [thousandth / 32, thousandth, draw].map(letter).iter().collect();
        RunId(format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}-{letters}"))
    }

    /// The name in a text, if it is one.
    pub fn parse(text: &str) -> Option<RunId> {
        let fits = |(found, form): (u8, &u8)| match form {
            b'd' => found.is_ascii_digit(),
            b'x' => LETTERS.contains(&found),
            form => found == *form,
        };
        let has_form = text.len() == FORM.len() && text.bytes().zip(FORM).all(fits);
        has_form.then(|| RunId(text.to_owned()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Year, month and day of a day counted from 1970-01-01, by the calendar of today
/// (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>).
fn date(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, in eras of 400 years, with February last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_when() {
        for (unix_ms, expected) in [
            (0, "19700101-000000-000"),
            (951_782_399_000, "20000228-235959-000"),
            (951_782_400_001, "20000229-000000-010"),
            (1_709_251_200_032, "20240301-000000-100"),
            (1_795_457_730_611, "20261123-181530-k30"),
            (4_102_444_799_999, "20991231-235959-z70"),
        ] {
            assert_eq!(RunId::of(unix_ms, 0).as_str(), expected);
        }
        assert_eq!(RunId::of(0, u64::MAX).as_str(), "19700101-000000-00z");
    }

    #[test]
    fn later_names_sort_later_and_are_read_again() {
        let ids: Vec<RunId> = (0..2000).map(|n| RunId::new(n * 987_654_321)).collect();
        assert!(ids.is_sorted());
        for id in &ids {
            assert_eq!(RunId::parse(id.as_str()).as_ref(), Some(id));
        }
    }

    #[test]
    fn other_names_are_none() {
        for text in [
            "",
            "last",
            "..",
            "20261123-181530-k3",
            "20261123-181530-k3f0",
            "20261123-181530-K3F",
            "20261123-181530-kil",
            "20261123_181530-k3f",
            "2026112a-181530-k3f",
            "20261123-181530-k3é",
        ] {
            assert_eq!(RunId::parse(text), None, "{text}");
        }
    }
}
