//! `Range` (RFC 9110, section 14).

/// What a request wants of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ranged {
    /// All of it: it says nothing else that we understand.
    Whole,
    /// From one byte to another, which belongs to it.
    Part {
        /// The first byte.
        from: u64,
        /// The last.
        to: u64,
    },
    /// Nothing that is there.
    Beyond,
}

/// Reads the header's value for a file of so many bytes. More than one range at a time is answered
/// with the whole, as the standard allows.
pub(crate) fn ranged(value: Option<&str>, bytes: u64) -> Ranged {
    let Some(range) = value.and_then(|value| value.trim().strip_prefix("bytes=")) else {
        return Ranged::Whole;
    };
    let Some((from, to)) = range.split_once('-') else { return Ranged::Whole };
    let number = |digits: &str| match digits.trim() {
        "" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            // What is too large for a number is beyond every file.
            Some(Some(digits.parse().unwrap_or(u64::MAX)))
        }
        _ => None,
    };
    match (number(from), number(to)) {
        (Some(None), Some(Some(last))) if last > 0 && bytes > 0 => {
            Ranged::Part { from: bytes.saturating_sub(last), to: bytes - 1 }
        }
        (Some(None), Some(Some(_))) => Ranged::Beyond,
        (Some(Some(from)), Some(to)) if to.is_none_or(|to| to >= from) => {
            if from >= bytes {
                return Ranged::Beyond;
            }
            Ranged::Part { from, to: to.unwrap_or(u64::MAX).min(bytes - 1) }
        }
        _ => Ranged::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::{Ranged, ranged};

    #[test]
    fn ranges_are_read_as_the_standard_has_them() {
        let part = |from, to| Ranged::Part { from, to };
        for (value, wanted) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=2-5", part(2, 5)),
            ("bytes=7-", part(7, 9)),
            ("bytes=-3", part(7, 9)),
            ("bytes=-30", part(0, 9)),
            ("bytes=3-99999999999999999999999", part(3, 9)),
            ("bytes=10-", Ranged::Beyond),
            ("bytes=99999999999999999999999-", Ranged::Beyond),
            ("bytes=-0", Ranged::Beyond),
            ("bytes=5-2", Ranged::Whole),
            ("bytes=0-1,3-4", Ranged::Whole),
            ("bytes=-", Ranged::Whole),
            ("bytes=a-b", Ranged::Whole),
            ("lines=0-1", Ranged::Whole),
        ] {
            assert_eq!(ranged(Some(value), 10), wanted, "{value}");
        }
        assert_eq!(ranged(None, 10), Ranged::Whole);
        assert_eq!(ranged(Some("bytes=0-"), 0), Ranged::Beyond);
        assert_eq!(ranged(Some("bytes=-1"), 0), Ranged::Beyond);
    }
}
